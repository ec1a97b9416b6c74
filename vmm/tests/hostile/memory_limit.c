/* The limit of 64 MiB that the test gives: what is touched counts, what is reserved does not. Prints what does not hold. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define LIMIT (64 * MIB)
#define CHUNKS 4096

static void check(int good, const char *what)
{
	if (!good)
		printf("%s\n", what);
}

static char *map(size_t len, int prot, int flags)
{
	char *at = mmap(NULL, len, prot, flags | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? NULL : at;
}

/* Touches memory piece by piece until there is no more; the number of MiB. */
static int fill(int flags)
{
	static char *chunks[CHUNKS];
	int count = 0;
	while (count < CHUNKS && (chunks[count] = map(MIB, PROT_READ | PROT_WRITE, flags))) {
		memset(chunks[count], 1, MIB);
		count++;
	}
	check(errno == ENOMEM, "errno is not ENOMEM");
	for (int n = 0; n < count; n++)
		munmap(chunks[n], MIB);
	return count;
}

/* Commits a reserve piece by piece, as runtimes do. */
static int commit(char *reserve)
{
	int count = 0;
	while (count < CHUNKS && mprotect(reserve + count * MIB, MIB, PROT_READ | PROT_WRITE) == 0) {
		memset(reserve + count * MIB, 1, MIB);
		count++;
	}
	check(errno == ENOMEM, "errno is not ENOMEM after mprotect");
	return count;
}

static void within(int mib, const char *what)
{
	if (mib < 48 || mib > 64)
		printf("%s: %d MiB\n", what, mib);
}

int main(void)
{
	char *reserve = map(8192 * MIB, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
	check(reserve != NULL, "a reserve of 8 GiB is refused");
	check(map(1024 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE) != NULL, "MAP_NORESERVE is refused");
	check(map(2 * LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE) == NULL, "twice the limit is given");
	check(map(LIMIT / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE) != NULL, "half of the limit is refused");
	check(malloc(2 * LIMIT) == NULL, "malloc gives twice the limit");

	within(fill(MAP_PRIVATE), "private memory");
	within(fill(MAP_PRIVATE), "private memory, once more");
	within(fill(MAP_SHARED), "shared memory");
	int committed = commit(reserve);
	within(committed, "committed memory");
	check(map(16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE) == NULL, "memory is given beyond the limit");
	madvise(reserve, committed * MIB, MADV_DONTNEED);
	within(fill(MAP_PRIVATE), "private memory, after madvise");

	/* Page tables are the monitor's memory: a page in each of 2 MiB pieces takes a page of them. */
	int pages = 0;
	while (pages < 4096 && mprotect(reserve + pages * 2 * MIB, 4096, PROT_READ) == 0)
		pages++;
	within(fill(MAP_PRIVATE) + pages / 256, "private memory beside page tables");

	/* What lies in pipes and sockets is bounded, and counts. */
	static char text[65536];
	long held = 0;
	for (int n = 0; n < 1500; n++) {
		int fds[2];
		if (pipe2(fds, O_NONBLOCK) != 0)
			break;
		for (ssize_t done; (done = write(fds[1], text, sizeof text)) > 0;)
			held += done;
	}
	for (int n = 0; n < 500; n++) {
		int fds[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
			break;
		for (ssize_t done; (done = send(fds[0], text, sizeof text, MSG_NOSIGNAL)) > 0;)
			held += done;
	}
	check(held > 64 * (long)MIB && held < 160 * (long)MIB, "pipes and sockets hold too little or too much");
	check(map(MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE) == NULL, "what pipes hold does not count");
	puts("done");
	return 0;
}
