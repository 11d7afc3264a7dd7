/* Runs a program many times, and says how long a run took, what it used and how much memory it ever held.
 *
 * usage: spawn [-n RUNS] [-j AT_ONCE] [-s FIRST] [-o FILE] PROGRAM ARG...
 *
 * `{}` in an ARG becomes the number of the run, counted from FIRST. What the program prints goes to FILE, by default
 * to /dev/null. Prints one JSON object; times are in microseconds.
 *
 * Why not from Python: to start a process costs it several times as much as the programs that are measured, and the
 * kernel counts the memory of whoever starts a program as the program's own; this one has next to none.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void die(const char *what) {
  fprintf(stderr, "spawn: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static double micros(struct timeval time) { return time.tv_sec * 1e6 + time.tv_usec; }

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* `arg` with the number in the place of each `{}`. */
static char *numbered(const char *arg, long number) {
  char digits[24];
  size_t length = snprintf(digits, sizeof digits, "%ld", number);
  char *out = malloc(strlen(arg) * (length + 1) + 1), *end = out;
  if (!out) die("no memory");
  while (*arg) {
    if (arg[0] == '{' && arg[1] == '}') {
      memcpy(end, digits, length);
      end += length;
      arg += 2;
    } else {
      *end++ = *arg++;
    }
  }
  *end = 0;
  return out;
}

int main(int argc, char **argv) {
  long runs = 1, at_once = 1, first = 0;
  const char *output = "/dev/null";
  for (int option; (option = getopt(argc, argv, "+n:j:s:o:")) != -1;) switch (option) {
      case 'n': runs = atol(optarg); break;
      case 'j': at_once = atol(optarg); break;
      case 's': first = atol(optarg); break;
      case 'o': output = optarg; break;
      default: return 64;
    }
  argv += optind;
  argc -= optind;
  if (argc < 1 || runs < 1 || at_once < 1) {
    fprintf(stderr, "spawn: usage: spawn [-n RUNS] [-j AT_ONCE] [-s FIRST] [-o FILE] PROGRAM ARG...\n");
    return 64;
  }
  double *took = calloc(runs, sizeof *took), *began = calloc(at_once, sizeof *began);
  pid_t *running = calloc(at_once, sizeof *running);
  char **args = calloc(argc + 1, sizeof *args);
  if (!took || !began || !running || !args) die("no memory");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0600);

  long started = 0, ended = 0, failed = 0, memory = 0;
  double cpu = 0, start = now();
  while (ended < runs) {
    for (long slot = 0; slot < at_once && started < runs; slot++) {
      if (running[slot]) continue;
      for (int at = 0; at < argc; at++) args[at] = numbered(argv[at], first + started);
      began[slot] = now();
      errno = posix_spawn(&running[slot], args[0], &actions, NULL, args, environ);
      if (errno) die(args[0]);
      for (int at = 0; at < argc; at++) free(args[at]);
      started++;
    }
    int status;
    struct rusage usage;
    pid_t pid = wait4(-1, &status, 0, &usage);
    if (pid < 0) die("wait");
    double time = now();
    for (long slot = 0; slot < at_once; slot++) {
      if (running[slot] != pid) continue;
      running[slot] = 0;
      took[ended++] = time - began[slot];
      failed += status != 0;
      cpu += micros(usage.ru_utime) + micros(usage.ru_stime);
      if (usage.ru_maxrss > memory) memory = usage.ru_maxrss;
    }
  }
  double wall = now() - start;
  qsort(took, runs, sizeof *took, compare);
  printf("{\"runs\":%ld,\"failed\":%ld,\"wall_us\":%.1f,\"median_us\":%.1f,\"p90_us\":%.1f,\"cpu_us\":%.1f,"
         "\"memory_kib\":%ld}\n",
         runs, failed, wall, took[runs / 2], took[runs * 9 / 10], cpu, memory);
  return 0;
}
