package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	slicereconciler "k8s.io/endpointslice"
	sliceutil "k8s.io/endpointslice/util"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

// capacity is how many addresses an Endpoints object holds at most; more would make
// it too large to be sent to every node on every change.
const capacity = 1000

// desired returns the Endpoints of the Service when these are the pods it selects.
func desired(service *corev1.Service, pods []*corev1.Pod) *corev1.Endpoints {
	var subsets []corev1.EndpointSubset
	for _, pod := range pods {
		if !sliceutil.ShouldPodBeInEndpoints(pod, service.Spec.PublishNotReadyAddresses) {
			continue
		}
		address, ok := addressOf(service, pod)
		if !ok {
			continue
		}
		ready := service.Spec.PublishNotReadyAddresses || podstate.Ready(pod)
		if len(service.Spec.Ports) == 0 && service.Spec.ClusterIP == corev1.ClusterIPNone {
			subsets = append(subsets, subset(address, nil, ready))
		}
		for i := range service.Spec.Ports {
			port := &service.Spec.Ports[i]
			number, err := slicereconciler.FindPort(pod, port)
			if err != nil {
				// The pod has no port of that name; others may.
				continue
			}
			subsets = append(subsets, subset(address, []corev1.EndpointPort{{
				Name: port.Name, Port: int32(number), Protocol: port.Protocol, AppProtocol: port.AppProtocol,
			}}, ready))
		}
	}
	object := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: service.Namespace, Name: service.Name,
			Labels: map[string]string{}, Annotations: map[string]string{},
		},
		Subsets: Repack(subsets),
	}
	maps.Copy(object.Labels, service.Labels)
	delete(object.Labels, corev1.IsHeadlessService)
	if service.Spec.ClusterIP == corev1.ClusterIPNone || service.Spec.ClusterIP == "" {
		object.Labels[corev1.IsHeadlessService] = ""
	}
	object.Labels[ManagedByLabel] = Component
	if truncate(object.Subsets) {
		object.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	}
	return object
}

// addressOf returns the pod's address in the Service's first family.
func addressOf(service *corev1.Service, pod *corev1.Pod) (corev1.EndpointAddress, bool) {
	wantV6 := false
	switch {
	case len(service.Spec.IPFamilies) > 0:
		wantV6 = service.Spec.IPFamilies[0] == corev1.IPv6Protocol
	case service.Spec.ClusterIP != "" && service.Spec.ClusterIP != corev1.ClusterIPNone:
		wantV6 = strings.Contains(service.Spec.ClusterIP, ":")
	default:
		wantV6 = strings.Contains(pod.Status.PodIP, ":")
	}
	for _, podIP := range pod.Status.PodIPs {
		ip, err := netip.ParseAddr(podIP.IP)
		if err != nil || ip.Is6() != wantV6 {
			continue
		}
		node := pod.Spec.NodeName
		address := corev1.EndpointAddress{
			IP: ip.String(), NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		}
		if sliceutil.ShouldSetHostname(pod, service) {
			address.Hostname = pod.Spec.Hostname
		}
		return address, true
	}
	return corev1.EndpointAddress{}, false
}

func subset(address corev1.EndpointAddress, ports []corev1.EndpointPort, ready bool) corev1.EndpointSubset {
	if ready {
		return corev1.EndpointSubset{Addresses: []corev1.EndpointAddress{address}, Ports: ports}
	}
	return corev1.EndpointSubset{NotReadyAddresses: []corev1.EndpointAddress{address}, Ports: ports}
}

// addressState is an address with the ports on which it is ready, or not.
type addressState struct {
	key   string
	ready bool
}

// Repack returns the canonical form of subsets: every address with the same ports
// is in one subset, and everything is in order, so that equal contents compare
// equal.
func Repack(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	addresses := map[addressState]corev1.EndpointAddress{}
	ports := map[addressState][]corev1.EndpointPort{}
	collect := func(list []corev1.EndpointAddress, ready bool, of []corev1.EndpointPort) {
		for _, address := range list {
			state := addressState{key: addressKey(address), ready: ready}
			addresses[state] = address
			for _, port := range of {
				if !slices.ContainsFunc(ports[state], func(other corev1.EndpointPort) bool { return comparePorts(port, other) == 0 }) {
					ports[state] = append(ports[state], port)
				}
			}
		}
	}
	for _, one := range subsets {
		collect(one.Addresses, true, one.Ports)
		collect(one.NotReadyAddresses, false, one.Ports)
	}
	packed := map[string]*corev1.EndpointSubset{}
	for state, address := range addresses {
		own := ports[state]
		slices.SortFunc(own, comparePorts)
		key := fmt.Sprint(portKeys(own))
		into := packed[key]
		if into == nil {
			into = &corev1.EndpointSubset{Ports: own}
			packed[key] = into
		}
		if state.ready {
			into.Addresses = append(into.Addresses, address)
		} else {
			into.NotReadyAddresses = append(into.NotReadyAddresses, address)
		}
	}
	var result []corev1.EndpointSubset
	for _, key := range slices.Sorted(maps.Keys(packed)) {
		one := packed[key]
		slices.SortFunc(one.Addresses, compareAddresses)
		slices.SortFunc(one.NotReadyAddresses, compareAddresses)
		result = append(result, *one)
	}
	return result
}

// addressKey tells addresses apart; pods on the host network share an IP.
func addressKey(address corev1.EndpointAddress) string {
	if address.TargetRef == nil {
		return address.IP
	}
	return address.IP + "/" + string(address.TargetRef.UID)
}

func compareAddresses(a, b corev1.EndpointAddress) int {
	return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(addressKey(a), addressKey(b)))
}

func comparePorts(a, b corev1.EndpointPort) int {
	return strings.Compare(portKey(a), portKey(b))
}

func portKey(port corev1.EndpointPort) string {
	protocol := ""
	if port.AppProtocol != nil {
		protocol = *port.AppProtocol
	}
	return fmt.Sprintf("%s/%s/%05d/%s", port.Name, port.Protocol, port.Port, protocol)
}

func portKeys(ports []corev1.EndpointPort) []string {
	keys := make([]string, len(ports))
	for i, port := range ports {
		keys[i] = portKey(port)
	}
	return keys
}

// truncate drops addresses beyond the capacity, those that are not ready first,
// from every subset by its share, and tells whether it had to.
func truncate(subsets []corev1.EndpointSubset) bool {
	ready, notReady := 0, 0
	for _, one := range subsets {
		ready += len(one.Addresses)
		notReady += len(one.NotReadyAddresses)
	}
	if ready+notReady <= capacity {
		return false
	}
	left, total := capacity-ready, notReady
	if ready > capacity {
		left, total = capacity, ready
	}
	room := left
	for i := range subsets {
		list := &subsets[i].NotReadyAddresses
		if ready > capacity {
			subsets[i].NotReadyAddresses = nil
			list = &subsets[i].Addresses
		}
		share := min((len(*list)*left+total-1)/total, room)
		*list = (*list)[:min(share, len(*list))]
		room -= len(*list)
	}
	return true
}
