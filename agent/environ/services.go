package environ

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// MasterNamespace holds the service of the API servers.
const (
	MasterNamespace = "default"
	masterService   = "kubernetes"
)

// VisibleServices picks the services whose addresses a pod gets as variables:
// the API servers' always, those of its own namespace when links are enabled.
func VisibleServices(pod *v1.Pod, all []*v1.Service) []*v1.Service {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	var visible []*v1.Service
	own := map[string]bool{}
	for _, s := range all {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		if links && s.Namespace == pod.Namespace {
			own[s.Name] = true
			visible = append(visible, s)
		}
	}
	for _, s := range all {
		if s.Namespace == MasterNamespace && s.Name == masterService && !own[s.Name] && s.Spec.ClusterIP != "" && len(s.Spec.Ports) > 0 {
			visible = append(visible, s)
		}
	}
	return visible
}

func fromServices(services []*v1.Service) map[string]string {
	vars := map[string]string{}
	for _, s := range services {
		prefix := variableName(s.Name)
		vars[prefix+"_SERVICE_HOST"] = s.Spec.ClusterIP
		vars[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.Name != "" {
				vars[prefix+"_SERVICE_PORT_"+variableName(p.Name)] = strconv.Itoa(int(p.Port))
			}
			protocol := strings.ToLower(string(p.Protocol))
			if protocol == "" {
				protocol = "tcp"
			}
			url := protocol + "://" + net.JoinHostPort(s.Spec.ClusterIP, strconv.Itoa(int(p.Port)))
			if i == 0 {
				vars[prefix+"_PORT"] = url
			}
			port := fmt.Sprintf("%s_PORT_%d_%s", prefix, p.Port, strings.ToUpper(protocol))
			vars[port] = url
			vars[port+"_PROTO"] = protocol
			vars[port+"_PORT"] = strconv.Itoa(int(p.Port))
			vars[port+"_ADDR"] = s.Spec.ClusterIP
		}
	}
	return vars
}

func variableName(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
