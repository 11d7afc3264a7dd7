/* The least that can be done for bytes: read, written elsewhere, synced.
 *
 * usage: copy EVERY TARGET SOURCE...
 *
 * All sources one after the other into TARGET, in pieces of 1 MiB, synced after each EVERY bytes and at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char piece[1 << 20];

static void die(const char *what) {
  fprintf(stderr, "copy: %s: %s\n", what, strerror(errno));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "copy: usage: copy EVERY TARGET SOURCE...\n");
    return 64;
  }
  long every = atol(argv[1]), unsynced = 0;
  int out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (out < 0) die(argv[2]);
  for (int at = 3; at < argc; at++) {
    int in = open(argv[at], O_RDONLY);
    if (in < 0) die(argv[at]);
    for (ssize_t got; (got = read(in, piece, sizeof piece)) != 0;) {
      if (got < 0) die(argv[at]);
      if (write(out, piece, got) != got) die(argv[2]);
      if ((unsynced += got) >= every) {
        if (fdatasync(out)) die("sync");
        unsynced = 0;
      }
    }
    close(in);
  }
  if (fdatasync(out)) die("sync");
  return 0;
}
