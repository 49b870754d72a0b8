# SRD_CHECK_HWLOC: locality of NICs and buffers.
AC_DEFUN([SRD_CHECK_HWLOC], [
    PKG_CHECK_MODULES([HWLOC], [hwloc], [have_hwloc=yes
        AC_DEFINE([HAVE_HWLOC], [1], [hwloc is available])], [have_hwloc=no])
])
