/* Alarm without a handler while it sleeps: ends by SIGALRM. */
#include "guests.h"
#include <sys/time.h>

int main(void) {
    struct itimerval soon = {.it_value = {0, 5000}};
    puts("setitimer");
    setitimer(ITIMER_REAL, &soon, NULL);
    for (;;)
        pause();
}
