# SRD_CHECK_GTEST: GoogleTest for the unit tests.
AC_DEFUN([SRD_CHECK_GTEST], [
    have_gtest=no
    AS_IF([test "x$with_gtest" != xno], [
        PKG_CHECK_MODULES([GTEST], [gtest gmock], [have_gtest=yes], [
            AS_IF([test "x$with_gtest" = xyes], [AC_MSG_ERROR([GoogleTest not found: install libgtest-dev libgmock-dev])])])
    ])
])
