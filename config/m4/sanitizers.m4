# SRD_SANITIZERS: --enable-sanitizers=address,undefined or =thread builds everything with them.
AC_DEFUN([SRD_SANITIZERS], [
    AC_ARG_ENABLE([sanitizers],
        [AS_HELP_STRING([--enable-sanitizers=LIST], [build with -fsanitize=LIST (address,undefined or thread)])],
        [], [enable_sanitizers=no])
    SANITIZER_FLAGS=
    AS_IF([test "x$enable_sanitizers" = xyes], [enable_sanitizers=address,undefined])
    AS_IF([test "x$enable_sanitizers" != xno], [
        SANITIZER_FLAGS="-fsanitize=$enable_sanitizers -fno-omit-frame-pointer"
        AS_CASE([$enable_sanitizers], [*undefined*], [SANITIZER_FLAGS="$SANITIZER_FLAGS -fno-sanitize-recover=undefined"])
        CXXFLAGS="$CXXFLAGS $SANITIZER_FLAGS"
        CFLAGS="$CFLAGS $SANITIZER_FLAGS"
        LDFLAGS="$LDFLAGS -fsanitize=$enable_sanitizers"
    ])
    AM_CONDITIONAL([WITH_SANITIZERS], [test "x$enable_sanitizers" != xno])
])
