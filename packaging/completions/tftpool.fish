# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tftpool_global_optspecs
    string join \n h/help V/version
end

function __fish_tftpool_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tftpool_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tftpool_using_subcommand
    set -l cmd (__fish_tftpool_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tftpool -n "__fish_tftpool_needs_command" -s h -l help -d 'Print help'
complete -c tftpool -n "__fish_tftpool_needs_command" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "serve" -d 'Serve a directory, read-only unless told otherwise, until SIGTERM or SIGINT'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "get" -d 'Get files from a server'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "put" -d 'Put files onto a server'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "probe" -d 'Find out what a server can do, and the fastest settings for it'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "sandbox" -d 'The sandbox that `tftpool serve` runs in'
complete -c tftpool -n "__fish_tftpool_needs_command" -f -a "config" -d 'Check, print or write the configuration file of `tftpool serve`'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l config -d 'Read options from this TOML file; options of the command line win [default: /etc/tftpool/tftpool.toml, if it exists]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l file-directory -d 'Same as DIR' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l allow-symlink-target -d 'Follow symbolic links that lead into this tree; repeatable [default: only within DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l absolute-links -d 'Absolute symbolic links: `host` paths are those of this host; `root` also looks up beneath DIR what leads into no served tree, as links made for a server in a chroot need it' -r -f -a "root\t''
host\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l strip-prefix -d 'Take this path off the front of names, whole components only; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l map-file -d 'Rewrite or refuse names by the rules of this file, in the syntax of tftpd-hpa; SIGHUP reads it again [default: no rules]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l per-client-root -d 'Serve a client from a directory of its own, where DIR has it: `ip`, `mac`, or a path with {ip}, {ip-hex}, {mac}, {mac-dash}, {interface} or {local} [default: one root for all]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l allow -d 'Allow requests from an address or network, such as 192.0.2.0/24,read; HOW is `read`, `write` or `both`; repeatable [default: all, if nothing is allowed]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l deny -d 'Deny requests from an address or network, in the same form; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l denied -d 'Answer to denied requests: `ignore` sends nothing, `refuse` sends ERROR 2' -r -f -a "ignore\t''
refuse\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l write -d 'Take uploads: `create` only under new names, `overwrite` replaces files, `unique` puts a number behind a name that is taken' -r -f -a "none\t''
create\t''
overwrite\t''
unique\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l upload-dir -d 'Directory for uploads [default: DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-upload -d 'Largest upload, in bytes or with K, M, G or T behind the number, 1 to 16777215T' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l umask -d 'Permission bits that uploads don\'t get, in octal, 000 to 777' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l host -d 'Address or name to listen on; repeatable [default: all IPv4 and IPv6 addresses]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l port -d 'UDP port; 0 takes a free one [default: 69]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l port-range -d 'Ports to answer from, for firewalls, such as 2000:3000; 1 to 65535, the lower one first [default: any free port]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-block-size -d 'Largest block size to agree to, in bytes, 8 to 65464, even if it travels in fragments [default: what the route to the client carries in one piece]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-window-size -d 'Largest window to agree to, in blocks, 1 to 32767' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l timeout -d 'Retransmission interval, 10ms to 255s, unless the client asks for another' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l retries -d 'Retransmissions into silence before a transfer is given up, 0 to 100' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l retransmit -d 'When to send again: `adaptive` probes after the measured round trip, `rfc` only after the timeout' -r -f -a "adaptive\t''
rfc\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l min-progress -d 'Abort transfers slower than this many blocks, or this many times 4 KiB, per minute, 0 to 65535; 0 disables' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-time -d 'The longest that a transfer may take, 1s to 365d' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l workers -d 'Threads that run transfers, 1 to 1024; waiting clients cost none' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l store-deadline -d 'Time for opening a file, 1s to 1h; after it, the client gets an ERROR' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-transfers -d 'Transfers at once, 1 to 65536 [default: what the descriptor limit allows, at most 65536]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-transfers-per-client -d 'Transfers at once for one client address, 1 to 65536 [default: no limit]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-half-open -d 'Half-open transfers at once, 1 to 65536: their clients have not answered yet, as forged addresses never do [default: all of them]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-half-open-per-client -d 'Half-open transfers at once for one client address, 1 to 65536; whole labs may sit behind one [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l max-half-open-per-network -d 'Half-open transfers at once for one network (IPv4 /24, IPv6 /64), 1 to 65536 [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l user -d 'Serve as this user, a name, UID or UID:GID; `root` keeps root\'s rights [default: nobody, when started as root]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l sandbox -d 'Confine the server to its files, by Landlock and without capabilities, before the first request: `off`, `best-effort` as far as the kernel can, `require` fails where it cannot' -r -f -a "off\t''
best-effort\t''
require\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l no-config -d 'Read no file [default: the file above]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l serve-unreadable -d 'Serve files that are not world-readable too, as far as the server\'s user may read them [default: refused]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l ignore-case -d 'Find names in another case of their letters a-z, the exact name first; two others that differ in case only are refused [default: case counts]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l durable -d 'Acknowledge an upload when the disk has it [default: when the system has it]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l freebind -d 'Listen also on an address that no interface has yet, as before the network is up [default: fail]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l dont-fragment -d 'Forbid routers to fragment what is sent [default: allowed]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l answer-broadcast -d 'Answer read requests sent to an IPv4 broadcast address [default: drop them]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -l no-client-history -d 'Do not reduce options for clients that recently failed with them [default: reduce for 10 minutes]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -s v -l verbose -d 'Log more: -v adds a line per decision, -vv one per burst and answer [default: one line per transfer]'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -s q -l quiet -d 'Log less: -q warnings and errors, -qq only errors'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand serve" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s o -l output -d 'File to write, a directory, or `-` for stdout [default: the last component of PATH, here]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l sha256 -d 'Print the SHA-256 digest as sha256sum does; with HEX, keep the file only if that is its digest' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l max-size -d 'Largest file to take, 1 to 16777215T, such as 512M or 4G; a server that announces a size is held to that too' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l blksize -d 'Block size to ask for, in bytes, 8 to 65464 [default: 1428, or what the route carries]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l windowsize -d 'Window to ask for, in blocks, 1 to 32767' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l mode -d 'Transfer mode, octet or netascii [default: what the URL says, or octet]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l timeout -d 'Retransmission interval, 10ms to 255s; whole seconds that are given here are asked of the server too [default: 1s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l retries -d 'Retransmissions into silence, 0 to 100; with 5 of them, a server that never answers is given up after 14s' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l max-time -d 'The longest that one file may take, 1ms to 365d [default: any time]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l local-port -d 'Local port, or ports such as 2000:3000, for firewalls; 1 to 65535, the lower one first [default: any free port]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l bind -d 'Local address to send from [default: the route\'s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l interface -d 'Network interface to use [default: the route\'s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l no-clobber -d 'Keep existing files: add a number to the name of the new one [default: replace existing files]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s c -l continue -d 'Refused: TFTP cannot continue a file'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l no-options -d 'Ask for no options: blocks of 512 octets, one at a time [default: options, where the server knows them]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l no-tsize -d 'Neither ask for the file\'s size nor tell it; for servers that get it wrong [default: sizes are compared]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s 4 -l ipv4 -d 'Use IPv4 addresses only [default: every address, in the resolver\'s order]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s 6 -l ipv6 -d 'Use IPv6 addresses only'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -l json -d 'Print one JSON object per file to stdout, or to stderr where the file itself goes to stdout [default: lines for people, on stderr]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s q -l quiet -d 'Print errors only [default: one line per file, and a bar on a terminal]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s v -l verbose -d 'Print a line per decision, such as each address that is asked; -vv a line per packet [default: none]'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand get" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l blksize -d 'Block size to ask for, in bytes, 8 to 65464 [default: 1428, or what the route carries]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l windowsize -d 'Window to ask for, in blocks, 1 to 32767' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l mode -d 'Transfer mode, octet or netascii [default: what the URL says, or octet]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l timeout -d 'Retransmission interval, 10ms to 255s; whole seconds that are given here are asked of the server too [default: 1s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l retries -d 'Retransmissions into silence, 0 to 100; with 5 of them, a server that never answers is given up after 14s' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l max-time -d 'The longest that one file may take, 1ms to 365d [default: any time]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l local-port -d 'Local port, or ports such as 2000:3000, for firewalls; 1 to 65535, the lower one first [default: any free port]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l bind -d 'Local address to send from [default: the route\'s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l interface -d 'Network interface to use [default: the route\'s]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l final-timeout -d 'Wait this long for the ACK of the last block, 0s to 365d: a device may write its flash first' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s c -l continue -d 'Refused: TFTP cannot continue a file'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l no-options -d 'Ask for no options: blocks of 512 octets, one at a time [default: options, where the server knows them]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l no-tsize -d 'Neither ask for the file\'s size nor tell it; for servers that get it wrong [default: sizes are compared]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s 4 -l ipv4 -d 'Use IPv4 addresses only [default: every address, in the resolver\'s order]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s 6 -l ipv6 -d 'Use IPv6 addresses only'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -l json -d 'Print one JSON object per file to stdout, or to stderr where the file itself goes to stdout [default: lines for people, on stderr]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s q -l quiet -d 'Print errors only [default: one line per file, and a bar on a terminal]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s v -l verbose -d 'Print a line per decision, such as each address that is asked; -vv a line per packet [default: none]'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand put" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -l max-time -d 'Stop asking after this time, 1s to 1h' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -s 4 -l ipv4 -d 'Use IPv4 addresses only [default: every address, in the resolver\'s order]'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -s 6 -l ipv6 -d 'Use IPv6 addresses only'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -l json -d 'Print one JSON object per line [default: a table]'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -s v -l verbose -d 'Print a line per decision, such as each address that is asked; -vv a line per packet [default: none]'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand probe" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and not __fish_seen_subcommand_from print" -s h -l help -d 'Print help'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and not __fish_seen_subcommand_from print" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and not __fish_seen_subcommand_from print" -f -a "print" -d 'Print what a server with these options may do'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l config -d 'Read options from this TOML file; options of the command line win [default: /etc/tftpool/tftpool.toml, if it exists]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l file-directory -d 'Same as DIR' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l allow-symlink-target -d 'Follow symbolic links that lead into this tree; repeatable [default: only within DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l absolute-links -d 'Absolute symbolic links: `host` paths are those of this host; `root` also looks up beneath DIR what leads into no served tree, as links made for a server in a chroot need it' -r -f -a "root\t''
host\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l strip-prefix -d 'Take this path off the front of names, whole components only; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l map-file -d 'Rewrite or refuse names by the rules of this file, in the syntax of tftpd-hpa; SIGHUP reads it again [default: no rules]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l per-client-root -d 'Serve a client from a directory of its own, where DIR has it: `ip`, `mac`, or a path with {ip}, {ip-hex}, {mac}, {mac-dash}, {interface} or {local} [default: one root for all]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l allow -d 'Allow requests from an address or network, such as 192.0.2.0/24,read; HOW is `read`, `write` or `both`; repeatable [default: all, if nothing is allowed]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l deny -d 'Deny requests from an address or network, in the same form; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l denied -d 'Answer to denied requests: `ignore` sends nothing, `refuse` sends ERROR 2' -r -f -a "ignore\t''
refuse\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l write -d 'Take uploads: `create` only under new names, `overwrite` replaces files, `unique` puts a number behind a name that is taken' -r -f -a "none\t''
create\t''
overwrite\t''
unique\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l upload-dir -d 'Directory for uploads [default: DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-upload -d 'Largest upload, in bytes or with K, M, G or T behind the number, 1 to 16777215T' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l umask -d 'Permission bits that uploads don\'t get, in octal, 000 to 777' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l host -d 'Address or name to listen on; repeatable [default: all IPv4 and IPv6 addresses]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l port -d 'UDP port; 0 takes a free one [default: 69]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l port-range -d 'Ports to answer from, for firewalls, such as 2000:3000; 1 to 65535, the lower one first [default: any free port]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-block-size -d 'Largest block size to agree to, in bytes, 8 to 65464, even if it travels in fragments [default: what the route to the client carries in one piece]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-window-size -d 'Largest window to agree to, in blocks, 1 to 32767' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l timeout -d 'Retransmission interval, 10ms to 255s, unless the client asks for another' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l retries -d 'Retransmissions into silence before a transfer is given up, 0 to 100' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l retransmit -d 'When to send again: `adaptive` probes after the measured round trip, `rfc` only after the timeout' -r -f -a "adaptive\t''
rfc\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l min-progress -d 'Abort transfers slower than this many blocks, or this many times 4 KiB, per minute, 0 to 65535; 0 disables' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-time -d 'The longest that a transfer may take, 1s to 365d' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l workers -d 'Threads that run transfers, 1 to 1024; waiting clients cost none' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l store-deadline -d 'Time for opening a file, 1s to 1h; after it, the client gets an ERROR' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-transfers -d 'Transfers at once, 1 to 65536 [default: what the descriptor limit allows, at most 65536]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-transfers-per-client -d 'Transfers at once for one client address, 1 to 65536 [default: no limit]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-half-open -d 'Half-open transfers at once, 1 to 65536: their clients have not answered yet, as forged addresses never do [default: all of them]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-half-open-per-client -d 'Half-open transfers at once for one client address, 1 to 65536; whole labs may sit behind one [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l max-half-open-per-network -d 'Half-open transfers at once for one network (IPv4 /24, IPv6 /64), 1 to 65536 [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l user -d 'Serve as this user, a name, UID or UID:GID; `root` keeps root\'s rights [default: nobody, when started as root]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l sandbox -d 'Confine the server to its files, by Landlock and without capabilities, before the first request: `off`, `best-effort` as far as the kernel can, `require` fails where it cannot' -r -f -a "off\t''
best-effort\t''
require\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l no-config -d 'Read no file [default: the file above]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l serve-unreadable -d 'Serve files that are not world-readable too, as far as the server\'s user may read them [default: refused]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l ignore-case -d 'Find names in another case of their letters a-z, the exact name first; two others that differ in case only are refused [default: case counts]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l durable -d 'Acknowledge an upload when the disk has it [default: when the system has it]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l freebind -d 'Listen also on an address that no interface has yet, as before the network is up [default: fail]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l dont-fragment -d 'Forbid routers to fragment what is sent [default: allowed]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l answer-broadcast -d 'Answer read requests sent to an IPv4 broadcast address [default: drop them]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -l no-client-history -d 'Do not reduce options for clients that recently failed with them [default: reduce for 10 minutes]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -s v -l verbose -d 'Log more: -v adds a line per decision, -vv one per burst and answer [default: one line per transfer]'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -s q -l quiet -d 'Log less: -q warnings and errors, -qq only errors'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand sandbox; and __fish_seen_subcommand_from print" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and not __fish_seen_subcommand_from check default print" -s h -l help -d 'Print help'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and not __fish_seen_subcommand_from check default print" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and not __fish_seen_subcommand_from check default print" -f -a "check" -d 'Check a configuration file: prints what is wrong, a line each, and ends with code 1'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and not __fish_seen_subcommand_from check default print" -f -a "default" -d 'Print a configuration file with all options, their meanings and their defaults'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and not __fish_seen_subcommand_from check default print" -f -a "print" -d 'Print the options that a server would have, and where each came from'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from check" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from default" -s h -l help -d 'Print help'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from default" -s V -l version -d 'Print version'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l config -d 'Read options from this TOML file; options of the command line win [default: /etc/tftpool/tftpool.toml, if it exists]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l file-directory -d 'Same as DIR' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l allow-symlink-target -d 'Follow symbolic links that lead into this tree; repeatable [default: only within DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l absolute-links -d 'Absolute symbolic links: `host` paths are those of this host; `root` also looks up beneath DIR what leads into no served tree, as links made for a server in a chroot need it' -r -f -a "root\t''
host\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l strip-prefix -d 'Take this path off the front of names, whole components only; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l map-file -d 'Rewrite or refuse names by the rules of this file, in the syntax of tftpd-hpa; SIGHUP reads it again [default: no rules]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l per-client-root -d 'Serve a client from a directory of its own, where DIR has it: `ip`, `mac`, or a path with {ip}, {ip-hex}, {mac}, {mac-dash}, {interface} or {local} [default: one root for all]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l allow -d 'Allow requests from an address or network, such as 192.0.2.0/24,read; HOW is `read`, `write` or `both`; repeatable [default: all, if nothing is allowed]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l deny -d 'Deny requests from an address or network, in the same form; repeatable [default: none]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l denied -d 'Answer to denied requests: `ignore` sends nothing, `refuse` sends ERROR 2' -r -f -a "ignore\t''
refuse\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l write -d 'Take uploads: `create` only under new names, `overwrite` replaces files, `unique` puts a number behind a name that is taken' -r -f -a "none\t''
create\t''
overwrite\t''
unique\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l upload-dir -d 'Directory for uploads [default: DIR]' -r -F
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-upload -d 'Largest upload, in bytes or with K, M, G or T behind the number, 1 to 16777215T' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l umask -d 'Permission bits that uploads don\'t get, in octal, 000 to 777' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l host -d 'Address or name to listen on; repeatable [default: all IPv4 and IPv6 addresses]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l port -d 'UDP port; 0 takes a free one [default: 69]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l port-range -d 'Ports to answer from, for firewalls, such as 2000:3000; 1 to 65535, the lower one first [default: any free port]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-block-size -d 'Largest block size to agree to, in bytes, 8 to 65464, even if it travels in fragments [default: what the route to the client carries in one piece]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-window-size -d 'Largest window to agree to, in blocks, 1 to 32767' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l timeout -d 'Retransmission interval, 10ms to 255s, unless the client asks for another' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l retries -d 'Retransmissions into silence before a transfer is given up, 0 to 100' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l retransmit -d 'When to send again: `adaptive` probes after the measured round trip, `rfc` only after the timeout' -r -f -a "adaptive\t''
rfc\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l min-progress -d 'Abort transfers slower than this many blocks, or this many times 4 KiB, per minute, 0 to 65535; 0 disables' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-time -d 'The longest that a transfer may take, 1s to 365d' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l workers -d 'Threads that run transfers, 1 to 1024; waiting clients cost none' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l store-deadline -d 'Time for opening a file, 1s to 1h; after it, the client gets an ERROR' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-transfers -d 'Transfers at once, 1 to 65536 [default: what the descriptor limit allows, at most 65536]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-transfers-per-client -d 'Transfers at once for one client address, 1 to 65536 [default: no limit]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-half-open -d 'Half-open transfers at once, 1 to 65536: their clients have not answered yet, as forged addresses never do [default: all of them]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-half-open-per-client -d 'Half-open transfers at once for one client address, 1 to 65536; whole labs may sit behind one [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l max-half-open-per-network -d 'Half-open transfers at once for one network (IPv4 /24, IPv6 /64), 1 to 65536 [default: no limit of its own]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l user -d 'Serve as this user, a name, UID or UID:GID; `root` keeps root\'s rights [default: nobody, when started as root]' -r
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l sandbox -d 'Confine the server to its files, by Landlock and without capabilities, before the first request: `off`, `best-effort` as far as the kernel can, `require` fails where it cannot' -r -f -a "off\t''
best-effort\t''
require\t''"
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l no-config -d 'Read no file [default: the file above]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l serve-unreadable -d 'Serve files that are not world-readable too, as far as the server\'s user may read them [default: refused]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l ignore-case -d 'Find names in another case of their letters a-z, the exact name first; two others that differ in case only are refused [default: case counts]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l durable -d 'Acknowledge an upload when the disk has it [default: when the system has it]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l freebind -d 'Listen also on an address that no interface has yet, as before the network is up [default: fail]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l dont-fragment -d 'Forbid routers to fragment what is sent [default: allowed]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l answer-broadcast -d 'Answer read requests sent to an IPv4 broadcast address [default: drop them]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -l no-client-history -d 'Do not reduce options for clients that recently failed with them [default: reduce for 10 minutes]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -s v -l verbose -d 'Log more: -v adds a line per decision, -vv one per burst and answer [default: one line per transfer]'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -s q -l quiet -d 'Log less: -q warnings and errors, -qq only errors'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tftpool -n "__fish_tftpool_using_subcommand config; and __fish_seen_subcommand_from print" -s V -l version -d 'Print version'
