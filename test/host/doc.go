// Package host makes test machines: several hosts on one machine, each with a
// network, a process table, a host name and files of its own, joined by a
// switch on which cables can be pulled and directions cut.
//
// A host is one process (its init) in namespaces of its own. /etc and /var are
// overlays on the machine's, /run is empty at every boot, everything else is
// the machine's own, read as it is; so programs run with the paths they have on
// a real machine, a host can be powered off and booted again with its data, and
// when its init ends the kernel ends everything with it: no process, mount,
// link or rule outlives a host. Its files, and its cgroups, lie in folders that
// Close removes.
//
// The switch is a host without files that holds a bridge. It knows nothing of
// what runs on the hosts.
package host
