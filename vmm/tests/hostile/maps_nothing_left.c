// Takes away all of the memory there is, with the code that does it.
#include "hostile.h"

int main(void) {
    syscall(SYS_munmap, 0L, STUB_PAGE);
    return still_here();
}
