/* Prints what the C library's resolver makes of a name or an address: the
 * addresses, sorted, or the name. Ends with 2 where there is nothing. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int order(const void *a, const void *b) { return strcmp(a, b); }

int main(int argc, char **argv)
{
	static char text[512][NI_MAXHOST];
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *one;
	size_t n = 0;

	if (argc != 3)
		return 1;
	if (strcmp(argv[1], "-x") == 0) {
		hints.ai_flags = AI_NUMERICHOST;
		if (getaddrinfo(argv[2], NULL, &hints, &all))
			return 1;
		if (getnameinfo(all->ai_addr, all->ai_addrlen, text[0], NI_MAXHOST, NULL, 0, NI_NAMEREQD))
			return 2;
		puts(text[0]);
		return 0;
	}
	hints.ai_family = strcmp(argv[1], "-4") == 0 ? AF_INET : strcmp(argv[1], "-6") == 0 ? AF_INET6 : AF_UNSPEC;
	if (getaddrinfo(argv[2], NULL, &hints, &all))
		return 2;
	for (one = all; one && n < 512; one = one->ai_next)
		if (getnameinfo(one->ai_addr, one->ai_addrlen, text[n], NI_MAXHOST, NULL, 0, NI_NUMERICHOST) == 0)
			n++;
	qsort(text, n, sizeof text[0], order);
	for (size_t i = 0; i < n; i++)
		printf("%s%s", i ? " " : "", text[i]);
	puts("");
	return 0;
}
