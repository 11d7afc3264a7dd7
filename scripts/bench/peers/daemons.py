"""syslog-ng and rsyslog as senders: their settings, and how they are started from unpacked Debian packages.

Both read the same bodies from a file and post them, through a queue that survives them, on four connections. Neither
signs, knows ids or keeps an audit. The settings favour speed: large windows, large queues in memory, four workers.
"""
import glob
import os
from urllib.parse import urlsplit

WORKERS = 4
INGEST = "/internal/milestones/ingest"

SYSLOG_NG = """@version: 3.35
options {{ stats-freq(0); }};
source s {{ file("{file}" flags(no-parse) log-iw-size(100000) log-fetch-limit(1000)); }};
destination d {{ http(url("{url}") method("POST") headers("content-type: application/json") body("${{MESSAGE}}")
  workers({workers}) batch-lines({lines}) batch-timeout(100) delimiter("\\n") persist-name("bench")
  disk-buffer(reliable(yes) disk-buf-size(1073741824) mem-buf-size(67108864) dir("{folder}"))); }};
log {{ source(s); destination(d); flags(flow-control); }};
"""

RSYSLOG = """global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imfile")
module(load="omelasticsearch")
template(name="body" type="string" string="%msg%")
ruleset(name="post") {{
  action(type="omelasticsearch" server="http://127.0.0.1" serverport="{port}" usehttps="off" template="body"
    searchIndex="bench" bulkmode="off" action.resumeRetryCount="-1"
    queue.type="LinkedList" queue.filename="bench" queue.saveOnShutdown="on" queue.size="200000"
    queue.dequeueBatchSize="1024" queue.workerThreads="{workers}" queue.workerThreadMinimumMessages="100")
}}
input(type="imfile" file="{file}" tag="bench" ruleset="post")
"""


def _libraries(debian):
    """Where the unpacked packages have their libraries."""
    found = glob.glob(f"{debian}/usr/lib/*-linux-gnu") + glob.glob(f"{debian}/usr/lib/syslog-ng")
    return dict(os.environ, LD_LIBRARY_PATH=":".join(found))


def syslog_ng(bench, file, url, lines):
    """A running syslog-ng that posts the lines of `file`, so many in one request."""
    folder, debian = bench.folder(), bench.debian
    conf = os.path.join(folder, "conf")
    with open(conf, "w") as out:
        out.write(SYSLOG_NG.format(file=file, url=url + INGEST, workers=WORKERS, lines=lines, folder=folder))
    modules = glob.glob(f"{debian}/usr/lib/syslog-ng/[0-9]*")[0]
    return bench.daemon(
        f"{debian}/usr/sbin/syslog-ng", "-F", "-f", conf, "-R", f"{folder}/persist", "-c", f"{folder}/control",
        "--pidfile", f"{folder}/pid", "--no-caps", f"--module-path={modules}", env=_libraries(debian))


def rsyslog(bench, file, url):
    """A running rsyslog that posts the lines of `file`, one in a request."""
    folder, debian = bench.folder(), bench.debian
    conf = os.path.join(folder, "conf")
    with open(conf, "w") as out:
        out.write(RSYSLOG.format(file=file, port=urlsplit(url).port, workers=WORKERS, folder=folder))
    modules = glob.glob(f"{debian}/usr/lib/*/rsyslog")[0]
    return bench.daemon(f"{debian}/usr/sbin/rsyslogd", "-n", "-f", conf, "-i", f"{folder}/pid", "-M", modules,
                        env=_libraries(debian))
