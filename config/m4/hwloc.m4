# SRD_CHECK_HWLOC: locality of NICs and buffers. Headers only: the library is opened when it is needed.
AC_DEFUN([SRD_CHECK_HWLOC], [
    AC_ARG_WITH([hwloc],
        [AS_HELP_STRING([--without-hwloc], [locality from sysfs alone])], [], [with_hwloc=check])
    have_hwloc=no
    AS_IF([test "x$with_hwloc" != xno], [
        PKG_CHECK_MODULES([HWLOC], [hwloc >= 2.0], [have_hwloc=yes
            AC_DEFINE([HAVE_HWLOC], [1], [hwloc is available])],
            [AS_IF([test "x$with_hwloc" = xyes], [AC_MSG_ERROR([hwloc not found: install libhwloc-dev])])])
    ])
    AM_CONDITIONAL([HAVE_HWLOC], [test "x$have_hwloc" = xyes])
])
