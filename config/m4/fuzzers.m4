# SRD_FUZZERS: --enable-fuzzers builds test/fuzz for libFuzzer; it needs clang. contrib/configure-fuzz sets it up.
AC_DEFUN([SRD_FUZZERS], [
    AC_ARG_ENABLE([fuzzers],
        [AS_HELP_STRING([--enable-fuzzers], [build the programs of test/fuzz for libFuzzer (needs clang++)])], [], [enable_fuzzers=no])
    AS_IF([test "x$enable_fuzzers" != xno], [
        AC_MSG_CHECKING([whether $CXX has libFuzzer])
        save_CXXFLAGS=$CXXFLAGS
        CXXFLAGS="$CXXFLAGS -fsanitize=fuzzer"
        AC_LINK_IFELSE([AC_LANG_SOURCE([[#include <cstddef>
#include <cstdint>
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *, std::size_t) { return 0; }]])],
            [AC_MSG_RESULT([yes])], [AC_MSG_ERROR([no: --enable-fuzzers needs clang++ with its runtime])])
        CXXFLAGS="$save_CXXFLAGS -fsanitize=fuzzer-no-link"
    ])
    AM_CONDITIONAL([WITH_FUZZERS], [test "x$enable_fuzzers" != xno])
])
