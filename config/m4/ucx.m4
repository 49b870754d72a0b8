# SRD_CHECK_UCX: the installed UCX, whose minor version decides the ABI that the transport is built for.
AC_DEFUN([SRD_CHECK_UCX], [
    ucx_version=
    AS_IF([test "x$with_ucx" != xno], [
        PKG_CHECK_MODULES([UCX], [ucx-uct ucx-ucs], [],
            [AC_MSG_ERROR([UCX not found: install libucx-dev, or configure --without-ucx])])
        ucx_version=`$PKG_CONFIG --modversion ucx-uct`
        AS_CASE([$ucx_version],
            [1.13.*], [ucx_abi=1131],
            [1.18.*], [ucx_abi=1181],
            [1.23.*], [ucx_abi=1230],
            [AC_MSG_ERROR([UCX $ucx_version has no layout in src/uct/srd/ucx: supported are 1.13, 1.18 and 1.23])])
        AC_DEFINE_UNQUOTED([UCX_SRD_ABI], [$ucx_abi], [UCX ABI the transport is built for: major, minor, patch])
        AC_DEFINE_UNQUOTED([UCX_SRD_BUILT_FOR], ["$ucx_version"], [UCX version found at configure time])
    ])
])
