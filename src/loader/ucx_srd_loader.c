/* libucx_srd_loader.so: makes UCX load the module srd beside the ones it was built with.
 *
 * UCX has no list of plugins: each of its libraries passes a list compiled into it (":ib:rdmacm:cma") to
 * ucs_load_modules(), which looks for lib<framework>_<name>.so.0 in the directory of libucs and in UCX_MODULE_DIR. The
 * call goes through the PLT, so a preloaded function of that name sees it, adds ":srd" for the framework "uct", and
 * calls the real one. Nothing else of UCX is touched; its own loader opens libuct_srd.so.0 like any module.
 *
 * This library is preloaded into every process under `ucx-srd run`, mpirun and sh among them. It therefore needs libc
 * only, has no constructor, allocates nothing, and keeps no state.
 *
 * Finding the real function: RTLD_NEXT sees it where an application is linked with UCX. Where UCX entered by
 * dlopen(RTLD_LOCAL), as under Python, RTLD_NEXT finds nothing, and giving up would lose every module of that UCX, the
 * distribution's too. libucs is then asked for by name; it is loaded by then, because it is what called us.
 * Rejected: preloading libuct_srd.so itself, which maps UCX, verbs and their constructors into every process; a
 * constructor that sets UCX_MODULES, which only filters the compiled list.
 *
 * Invariants
 *   LDR-1: 'once' and 'flags' reach the real function untouched: it is called under UCX's own guard.
 *   LDR-2: when the list cannot be extended (too long), the original is passed on: UCX keeps all of its own modules.
 *   LDR-3: errno is preserved.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The longest module list seen in a distribution has 30 characters. */
enum { MODULE_LIST_SIZE_MAX = 1024 };

typedef void (*load_modules_t)(const char *framework, const char *modules, void *once, unsigned flags);

static load_modules_t find_real(void)
{
    static const char *const names[] = {"libucs.so.0", "libucs.so"};
    void *function = dlsym(RTLD_NEXT, "ucs_load_modules");
    size_t i;

    for (i = 0; function == NULL && i < sizeof(names) / sizeof(names[0]); ++i) {
        void *libucs = dlopen(names[i], RTLD_LAZY | RTLD_NOLOAD);
        if (libucs != NULL) {
            function = dlsym(libucs, "ucs_load_modules");
            dlclose(libucs); /* its callers hold it */
        }
    }
    return (load_modules_t)function;
}

/* Whether 'name' is one of the words of a colon-separated list. */
static int list_has(const char *list, const char *name)
{
    const size_t name_size = strlen(name);

    while (*list != '\0') {
        const size_t word_size = strcspn(list, ":");
        if ((word_size == name_size) && (memcmp(list, name, name_size) == 0)) {
            return 1;
        }
        list += word_size;
        list += (*list == ':');
    }
    return 0;
}

__attribute__((visibility("default"))) void ucs_load_modules(const char *framework, const char *modules, void *once,
                                                             unsigned flags)
{
    const int saved_errno = errno;
    const load_modules_t real = find_real();
    char extended[MODULE_LIST_SIZE_MAX];
    size_t size;

    errno = saved_errno;
    if (real == NULL) {
        return; /* nobody to call: no UCX library can have made this call */
    }
    if ((strcmp(framework, "uct") == 0) && !list_has(modules, "srd")) {
        size = strlen(modules);
        if (size + sizeof(":srd") <= sizeof(extended)) {
            memcpy(extended, modules, size);
            memcpy(extended + size, ":srd", sizeof(":srd"));
            modules = extended;
        }
    }
    real(framework, modules, once, flags);
}
