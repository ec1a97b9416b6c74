// Writes to more memory than there is: it is told so, or ends.
#include "hostile.h"

int main(void) {
    for (;;) {
        char *block = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) break;
        memset(block, 1, 4 << 20);
    }
    return still_here();
}
