# Completes reminder-scan in fish. Made by scripts/manual; do not edit.
complete -c reminder-scan -f
complete -c reminder-scan -l window -x -d 'length of a window, in whole minutes'
complete -c reminder-scan -l lead -x -d 'remind this long before a task is due'
complete -c reminder-scan -l now -x -d 'what time it is, RFC 3339'
complete -c reminder-scan -l list -d 'show what is due and what is next, and remind of nothing'
complete -c reminder-scan -l scope -x -d 'with --list: of this scope alone'
complete -c reminder-scan -l next -s n -x -d 'with --list: show so many of the tasks that are due next'
complete -c reminder-scan -l dry-run -d 'show what would be reminded of, and remind of nothing'
complete -c reminder-scan -l logs -x -a '(__fish_complete_directories)' -d 'logs folder'
complete -c reminder-scan -l rotate-bytes -x -d 'size at which a journal begins a new file'
complete -c reminder-scan -l quiet -s q -d 'say nothing about success'
complete -c reminder-scan -l help -s h -d 'show this help'
complete -c reminder-scan -l version -s V -d 'show version and commit'
