/* The least that can be done for a record: locked, written to the same two files as Milepost's, synced, once each.
 *
 * usage: append [-n TIMES] [-k COPIES] FOLDER JOURNAL RECORD AUDIT_RECORD
 *
 * Takes FOLDER/.lock/JOURNAL.lock, appends the record to FOLDER/JOURNAL.jsonl and syncs it; then the same with the
 * audit: an effect before its audit record, each synced. No parsing, no index, no mark. With -n it does so many times
 * with the files open, with -k each time with so many copies of the records: the floor of a server that commits groups.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct log {
  int lock, file;
  char *bytes;
  size_t length;
};

static void die(const char *what) {
  fprintf(stderr, "append: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int open_in(const char *folder, const char *prefix, const char *name, const char *suffix, int flags) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s%s%s", folder, prefix, name, suffix);
  int file = open(path, flags | O_CREAT | O_CLOEXEC, 0660);
  if (file < 0) die(path);
  return file;
}

static void copies(struct log *log, const char *record, long count) {
  size_t length = strlen(record) + 1;
  log->length = length * count;
  if (!(log->bytes = malloc(log->length))) die("no memory");
  for (long at = 0; at < count; at++) {
    memcpy(log->bytes + at * length, record, length - 1);
    log->bytes[(at + 1) * length - 1] = '\n';
  }
}

static void append(struct log *log, const char *folder, const char *name) {
  if (log->lock < 0) log->lock = open_in(folder, ".lock/", name, ".lock", O_RDWR);
  if (flock(log->lock, LOCK_EX)) die("lock");
  if (log->file < 0) log->file = open_in(folder, "", name, ".jsonl", O_WRONLY | O_APPEND);
  if (write(log->file, log->bytes, log->length) != (ssize_t)log->length) die("write");
  if (fdatasync(log->file)) die("sync");
}

int main(int argc, char **argv) {
  long times = 1, count = 1;
  for (int option; (option = getopt(argc, argv, "+n:k:")) != -1;) switch (option) {
      case 'n': times = atol(optarg); break;
      case 'k': count = atol(optarg); break;
      default: return 64;
    }
  if (argc - optind != 4) {
    fprintf(stderr, "append: usage: append [-n TIMES] [-k COPIES] FOLDER JOURNAL RECORD AUDIT_RECORD\n");
    return 64;
  }
  char **given = argv + optind;
  struct log journal = {-1, -1}, audit = {-1, -1};
  copies(&journal, given[2], count);
  copies(&audit, given[3], count);
  while (times-- > 0) {
    append(&journal, given[0], given[1]);
    append(&audit, given[0], "audit");
    if (flock(audit.lock, LOCK_UN) || flock(journal.lock, LOCK_UN)) die("unlock");
  }
  return 0;
}
