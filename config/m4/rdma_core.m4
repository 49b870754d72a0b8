# SRD_CHECK_RDMA_CORE: libibverbs and libefa (efadv), which both products need.
AC_DEFUN([SRD_CHECK_RDMA_CORE], [
    PKG_CHECK_MODULES([IBVERBS], [libibverbs], [],
        [AC_MSG_ERROR([libibverbs not found: install libibverbs-dev])])
    PKG_CHECK_MODULES([EFADV], [libefa], [],
        [AC_MSG_ERROR([libefa (efadv) not found: install libibverbs-dev 24 or later])])
    rdma_core_version=`$PKG_CONFIG --modversion libefa`
    # Inline data in 128-byte work requests: rdma-core 63.
    srd_saved_CPPFLAGS=$CPPFLAGS
    CPPFLAGS="$CPPFLAGS $IBVERBS_CFLAGS $EFADV_CFLAGS"
    AC_CHECK_MEMBERS([struct efadv_device_attr.inline_buf_size_ex, struct efadv_qp_init_attr.flags], [], [],
        [[#include <infiniband/efadv.h>]])
    AC_CHECK_DECLS([EFADV_QP_FLAGS_INLINE_WRITE], [], [], [[#include <infiniband/efadv.h>]])
    CPPFLAGS=$srd_saved_CPPFLAGS
])
