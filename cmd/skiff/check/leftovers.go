package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// distribution is another Kubernetes that may run, or have run, here.
type distribution struct {
	name string
	// processes by the kernel's short names, files it leaves, and how it is removed.
	processes, files []string
	remove           string
}

var distributions = []distribution{
	{"k3s", []string{"k3s", "k3s-server", "k3s-agent"}, []string{"/etc/rancher/k3s", "/var/lib/rancher/k3s", "/usr/local/bin/k3s"}, "/usr/local/bin/k3s-uninstall.sh || /usr/local/bin/k3s-agent-uninstall.sh"},
	{"rke2", []string{"rke2"}, []string{"/etc/rancher/rke2", "/var/lib/rancher/rke2"}, "/usr/local/bin/rke2-uninstall.sh"},
	{"k0s", []string{"k0s"}, []string{"/etc/k0s", "/var/lib/k0s"}, "k0s stop; k0s reset"},
	{"MicroK8s", []string{"kubelite"}, []string{"/var/snap/microk8s"}, "snap remove --purge microk8s"},
	{"kubeadm", []string{"kubelet", "kube-apiserver", "kube-proxy", "etcd"}, []string{"/etc/kubernetes/kubelet.conf", "/etc/kubernetes/manifests", "/var/lib/etcd/member"}, "kubeadm reset --force && systemctl disable --now kubelet"},
}

// foreignLinks are made by networks of pods that clash with ours, by the
// beginning of their names.
var foreignLinks = []struct{ prefix, network string }{
	{"cni", "a CNI bridge"}, {"flannel", "flannel"}, {"cali", "Calico"}, {"vxlan.calico", "Calico"}, {"tunl", "Calico"},
	{"cilium", "Cilium"}, {"weave", "Weave"}, {"kube-bridge", "kube-router"}, {"kube-ipvs", "kube-proxy"}, {"nodelocaldns", "NodeLocal DNS"},
}

func checkLeftovers(_ context.Context, e *examination) {
	before := len(e.findings)
	running := e.processNames()
	for _, d := range distributions {
		i := slices.IndexFunc(d.processes, func(name string) bool { return running[truncated(name)] })
		present := slices.DeleteFunc(slices.Clone(d.files), func(file string) bool { return !e.exists(file) })
		switch {
		case i >= 0 && d.name == "kubeadm" && d.processes[i] == "etcd":
			e.warn("etcd", "runs here: it competes with Skiff's store for the disk", "systemctl disable --now etcd   # unless something else needs it")
		case i >= 0:
			e.fail(d.name, d.processes[i]+" runs here: two of them on one machine fight over containers, ports and rules", d.remove)
		case len(present) > 0:
			e.warn(d.name, "has been here and left "+strings.Join(present, ", "), d.remove, "rm -rf "+strings.Join(present, " "))
		}
	}
	e.foreignLinks()
	if len(e.findings) == before {
		e.ok("others", "no trace of another Kubernetes")
	}
}

// processNames are the kernel's short names of what runs, outside of containers
// and in them.
func (h *host) processNames() map[string]bool {
	names := map[string]bool{}
	for _, file := range h.glob("/proc/[0-9]*/comm") {
		names[h.text(file)] = true
	}
	return names
}

func (e *examination) foreignLinks() {
	links, err := e.links()
	if err != nil {
		return // said with the address
	}
	found := map[string][]string{}
	for _, l := range links {
		for _, f := range foreignLinks {
			// tunl0 is there wherever the kernel has IPIP; in mode ipvs kube-ipvs0 is ours.
			if !strings.HasPrefix(l.name, f.prefix) || l.name == "tunl0" && !l.up || f.prefix == "kube-ipvs" && e.proxy.Mode == "ipvs" {
				continue
			}
			found[f.network] = append(found[f.network], l.name)
			break
		}
	}
	for _, f := range foreignLinks {
		names := found[f.network]
		if len(names) == 0 {
			continue
		}
		delete(found, f.network)
		var remedy []string
		for _, name := range names {
			remedy = append(remedy, "ip link delete "+name)
		}
		e.warn("network links", fmt.Sprintf("%s of %s: its routes and rules lead pods' packets astray", strings.Join(names, ", "), f.network), append(remedy, "reboot   # takes its rules away, too")...)
	}
}
