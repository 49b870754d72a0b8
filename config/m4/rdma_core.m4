# SRD_CHECK_RDMA_CORE: libibverbs and libefa (efadv), which both products need.
AC_DEFUN([SRD_CHECK_RDMA_CORE], [
    PKG_CHECK_MODULES([IBVERBS], [libibverbs], [],
        [AC_MSG_ERROR([libibverbs not found: install libibverbs-dev])])
    PKG_CHECK_MODULES([EFADV], [libefa], [],
        [AC_MSG_ERROR([libefa (efadv) not found: install libibverbs-dev 24 or later])])
    rdma_core_version=`$PKG_CONFIG --modversion libefa`
])
