package hostfiles

import (
	"bytes"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	header     = "# Kubernetes-managed hosts file.\n"
	headerHost = "# Kubernetes-managed hosts file (host network).\n"
)

// maxHostname is the kernel's limit for a host name.
const maxHostname = 63

// Hostname returns the pod's host name and its domain, which is empty unless
// the pod has a subdomain.
func Hostname(pod *v1.Pod, clusterDomain string) (hostname, domain string) {
	if override := pod.Spec.HostnameOverride; override != nil {
		return cut(*override), ""
	}
	hostname = pod.Spec.Hostname
	if hostname == "" {
		hostname = pod.Name
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return cut(hostname), domain
}

// cut makes a name fit the kernel; no name ends in a dash or a dot.
func cut(name string) string {
	if len(name) <= maxHostname {
		return name
	}
	return strings.TrimRight(name[:maxHostname], "-.")
}

// checkNames refuses names the API would have refused; static pods come past it.
func checkNames(pod *v1.Pod) error {
	if name := pod.Spec.HostnameOverride; name != nil {
		if wrong := validation.IsDNS1123Subdomain(*name); len(wrong) > 0 {
			return fmt.Errorf("pod HostnameOverride %q is not a valid DNS subdomain: %s", *name, strings.Join(wrong, ";"))
		}
		return nil
	}
	for _, part := range []struct{ field, value string }{{"Hostname", pod.Spec.Hostname}, {"Subdomain", pod.Spec.Subdomain}} {
		if part.value == "" {
			continue
		}
		if wrong := validation.IsDNS1123Label(part.value); len(wrong) > 0 {
			return fmt.Errorf("pod %s %q is not a valid DNS label: %s", part.field, part.value, strings.Join(wrong, ";"))
		}
	}
	return nil
}

// KernelHostname is what the kernel is told: the short name, or the full one
// when setHostnameAsFQDN asks for it.
func KernelHostname(pod *v1.Pod, clusterDomain string) (string, error) {
	if err := checkNames(pod); err != nil {
		return "", err
	}
	hostname, domain := Hostname(pod, clusterDomain)
	if domain == "" || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN {
		return hostname, nil
	}
	full := hostname + "." + domain
	if len(full) > maxHostname+1 {
		return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", full, maxHostname+1, len(full))
	}
	return full, nil
}

// Hosts is the content of /etc/hosts in a pod with a network of its own.
func Hosts(podIPs []string, hostname, domain string, aliases []v1.HostAlias) []byte {
	var b bytes.Buffer
	b.WriteString(header)
	b.WriteString("127.0.0.1\tlocalhost\n")
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::0\tip6-localnet\n")
	b.WriteString("fe00::0\tip6-mcastprefix\n")
	b.WriteString("fe00::1\tip6-allnodes\n")
	b.WriteString("fe00::2\tip6-allrouters\n")
	for _, ip := range podIPs {
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, hostname, domain, hostname)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
		}
	}
	writeAliases(&b, aliases)
	return b.Bytes()
}

// HostNetworkHosts is the content of /etc/hosts in a pod on the node's network.
func HostNetworkHosts(nodeHosts []byte, aliases []v1.HostAlias) []byte {
	var b bytes.Buffer
	b.WriteString(headerHost)
	b.Write(nodeHosts)
	writeAliases(&b, aliases)
	return b.Bytes()
}

func writeAliases(b *bytes.Buffer, aliases []v1.HostAlias) {
	if len(aliases) == 0 {
		return
	}
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range aliases {
		fmt.Fprintf(b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
}
