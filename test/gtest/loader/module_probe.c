/* Opens UCX the way Python or NCCL do, with RTLD_LOCAL, lets it load its modules, and prints the modules that are mapped
 * afterwards, one name a line. argv[1] is a library of UCX's, or "linked" to use the UCX this program is linked with. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <uct/api/uct.h>

int main(int argc, char **argv)
{
    ucs_status_t (*query)(uct_component_h **, unsigned *) = NULL;
    uct_component_h *components;
    unsigned count;
    char line[4096];
    FILE *maps;

    if (argc != 2) {
        return 2;
    }
#ifdef LINKED
    query = uct_query_components;
#else
    void *uct = dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL);
    if (uct == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    query = (ucs_status_t(*)(uct_component_h **, unsigned *))dlsym(uct, "uct_query_components");
#endif
    if (query == NULL || query(&components, &count) != UCS_OK) {
        return 3;
    }
    maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
        const char *name = strstr(line, "/libuct_");
        if (name != NULL && strstr(line, "00000000 ") != NULL) { /* offset 0: once for each library */
            printf("%s", name + 1);
        }
    }
    return 0;
}
