# SRD_CXX_FLAGS: the language level and the warnings every source is built with.
AC_DEFUN([SRD_CXX_FLAGS], [
    SRD_CXXFLAGS="-std=gnu++20 -Wall -Wextra -Wno-missing-field-initializers -fvisibility=hidden -fno-strict-aliasing"
    AS_IF([test "x$enable_werror" = xyes], [SRD_CXXFLAGS="$SRD_CXXFLAGS -Werror"])
    # The data path has no exceptions and no RTTI; control-plane code that needs bad_alloc uses SRD_CXXFLAGS alone.
    SRD_DATAPATH_CXXFLAGS="$SRD_CXXFLAGS -fno-exceptions -fno-rtti"
    AC_SUBST([SRD_CXXFLAGS])
    AC_SUBST([SRD_DATAPATH_CXXFLAGS])
])

# SRD_LIBTOOL_STATIC_CXX: libtool links C++ libraries with -nostdlib and names libstdc++ itself, which defeats
# -static-libstdc++. Plugins and preloaded libraries must not drag a libstdc++ into the host process (conda, wheels),
# so the compiler driver links them.
AC_DEFUN([SRD_LIBTOOL_STATIC_CXX], [
    archive_cmds_CXX='$CC -shared $pic_flag $libobjs $deplibs $compiler_flags $wl-soname $wl$soname -o $lib'
    predep_objects_CXX=; postdep_objects_CXX=; predeps_CXX=; postdeps_CXX=
    AS_IF([test "x$enable_sanitizers" = xno],
          [SRD_PLUGIN_LDFLAGS="-static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL -Wl,-z,defs -Wl,-z,now"],
          [SRD_PLUGIN_LDFLAGS=""])
    AC_SUBST([SRD_PLUGIN_LDFLAGS])
])
