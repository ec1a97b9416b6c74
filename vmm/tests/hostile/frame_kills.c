// A frame that leads nowhere, and nobody who catches that.
#include "hostile.h"

int main(void) {
    __asm__ volatile("movq $8, %%rsp; movl $15, %%eax; syscall" ::: "rax", "rcx", "r11", "memory");
    return still_here();
}
