// Package up runs a whole cluster on one machine without systemd: it makes
// certificates and configuration, starts the daemons (and containerd if none is
// running) as children, restarts those that end, and takes everything down
// again without a trace.
//
// It knows the daemons only as programs with a configuration file; it imports
// none of them.
package up

import "path/filepath"

// Layout says where a cluster on this machine keeps its files: below Root,
// which is / for the real one and another folder for a second cluster.
type Layout struct{ Root string }

func (l Layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.Root}, elements...)...)
}

// PKI is the folder of certificates and keys.
func (l Layout) PKI() string { return l.path("etc/skiff/pki") }

// AdminKubeconfig is the kubeconfig of the cluster's administrator.
func (l Layout) AdminKubeconfig() string { return l.path("etc/skiff/admin.conf") }

// UserConfig is the configuration file of a daemon, made by people, by "skiff
// init" or by "skiff join"; without it the defaults hold.
func (l Layout) UserConfig(daemon string) string { return l.path("etc/skiff", daemon+".yaml") }

// Config is the configuration file that a daemon is started with.
func (l Layout) Config(daemon string) string { return l.path("run/skiff/up", daemon+".yaml") }

// Kubeconfig holds a daemon's credentials.
func (l Layout) Kubeconfig(daemon string) string { return l.path("etc/skiff", daemon+".conf") }

// Data is the folder of everything that outlives a restart.
func (l Layout) Data() string { return l.path("var/lib/skiff") }

// Run is the folder of sockets, process ids and namespaces.
func (l Layout) Run() string { return l.path("run/skiff") }

// Logs is the folder of the daemons' logs.
func (l Layout) Logs() string { return l.path("var/log/skiff") }

// Log is the log file of one daemon.
func (l Layout) Log(daemon string) string { return filepath.Join(l.Logs(), daemon+".log") }

// PIDFile holds the process id of one daemon or, as "up", of the supervisor.
func (l Layout) PIDFile(daemon string) string { return l.path("run/skiff/up", daemon+".pid") }

// ContainerdSocket is where the machine's own containerd listens, and where
// ours does when there is none. With another root it is always ours.
func (l Layout) ContainerdSocket() string {
	return l.path("run/containerd/containerd.sock")
}
