package ipvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// key tells a virtual service from others.
type key struct {
	protocol corev1.Protocol
	address  netip.Addr
	port     uint16
}

// element is the key as an ipset of the type hash:ip,port has it.
func (k key) element() string {
	return k.address.String() + "," + strings.ToLower(string(k.protocol)) + ":" + strconv.Itoa(int(k.port))
}

func (k key) String() string {
	return netip.AddrPortFrom(k.address, k.port).String() + "/" + string(k.protocol)
}

// ipvsadm is the key as the options of that program.
func (k key) ipvsadm() string {
	option := map[corev1.Protocol]string{corev1.ProtocolTCP: "-t ", corev1.ProtocolUDP: "-u ", corev1.ProtocolSCTP: "--sctp-service "}[k.protocol]
	return option + netip.AddrPortFrom(k.address, k.port).String()
}

func compareKeys(a, b key) int {
	return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol))
}

// settings of a virtual service.
type settings struct {
	scheduler string
	flags     uint32
	// affinity is how long a client keeps its destination; 0: not at all.
	affinity time.Duration
}

// The flags of a virtual service: IP_VS_SVC_F_PERSISTENT, and IP_VS_SVC_F_SCHED1
// and 2, which mean something to the schedulers that hash.
const (
	flagPersistent = 0x1
	flagFallback   = 0x8
	flagPort       = 0x10
	flagsOurs      = flagPersistent | 0x8 | 0x10 | 0x20
)

func (s settings) String() string {
	text := "-s " + s.scheduler
	if s.affinity > 0 {
		text += " -p " + strconv.Itoa(int(s.affinity/time.Second))
	}
	var flags []string
	if s.flags&flagFallback != 0 {
		flags = append(flags, s.scheduler+"-fallback")
	}
	if s.flags&flagPort != 0 {
		flags = append(flags, s.scheduler+"-port")
	}
	if flags != nil {
		text += " -b " + strings.Join(flags, ",")
	}
	return text
}

// virtual is a virtual service that is wanted.
type virtual struct {
	key
	settings
	// endpoints in order of address.
	endpoints []netip.AddrPort
}

func (v *virtual) equal(other *virtual) bool {
	return v.key == other.key && v.settings == other.settings && slices.Equal(v.endpoints, other.endpoints)
}

// present is a virtual service that the kernel has, and the weights of its
// destinations.
type present struct {
	settings
	weights map[netip.AddrPort]int
}

// verb is what an operation does.
type verb int

const (
	addService verb = iota
	editService
	deleteService
	addDestination
	editDestination
	deleteDestination
)

// operation is one change of IPVS.
type operation struct {
	verb
	key
	settings
	destination netip.AddrPort
	weight      int
}

// String is the operation as ipvsadm-restore reads it.
func (o operation) String() string {
	service := o.key.ipvsadm()
	switch o.verb {
	case addService:
		return "-A " + service + " " + o.settings.String()
	case editService:
		return "-E " + service + " " + o.settings.String()
	case deleteService:
		return "-D " + service
	case addDestination:
		return fmt.Sprintf("-a %s -r %s -m -w %d", service, o.destination, o.weight)
	case editDestination:
		return fmt.Sprintf("-e %s -r %s -m -w %d", service, o.destination, o.weight)
	}
	return fmt.Sprintf("-d %s -r %s", service, o.destination)
}

// extend returns what brings has to serve want, without taking anything away.
// Has is nil for a virtual service that the kernel does not have.
func extend(want *virtual, has *present) []operation {
	var out []operation
	switch {
	case has == nil:
		out = append(out, operation{verb: addService, key: want.key, settings: want.settings})
		has = &present{}
	case has.settings != want.settings:
		out = append(out, operation{verb: editService, key: want.key, settings: want.settings})
	}
	for _, endpoint := range want.endpoints {
		weight, there := has.weights[endpoint]
		switch {
		case !there:
			out = append(out, operation{verb: addDestination, key: want.key, destination: endpoint, weight: 1})
		case weight != 1:
			out = append(out, operation{verb: editDestination, key: want.key, destination: endpoint, weight: 1})
		}
	}
	return out
}

// reduce returns what keeps new connections from what is not wanted any more.
// Want is nil for a virtual service that is not wanted at all.
//
// Destinations of UDP go at once: a client that goes on must notice. Those of
// TCP and SCTP get weight 0, and are finished when they have no connections.
func reduce(k key, want *virtual, has *present) []operation {
	wanted := map[netip.AddrPort]bool{}
	if want != nil {
		for _, endpoint := range want.endpoints {
			wanted[endpoint] = true
		}
	}
	var out []operation
	left := len(has.weights)
	for _, destination := range sortedDestinations(has.weights) {
		switch {
		case wanted[destination]:
		case k.protocol == corev1.ProtocolUDP:
			out = append(out, operation{verb: deleteDestination, key: k, destination: destination})
			left--
		case has.weights[destination] != 0:
			out = append(out, operation{verb: editDestination, key: k, destination: destination, weight: 0})
		}
	}
	if want == nil && left == 0 {
		out = append(out, operation{verb: deleteService, key: k})
	}
	return out
}

// finish returns what removes the destinations that are not wanted and have no
// connection left, and the virtual service after its last one.
func finish(k key, want *virtual, has *present, connections map[netip.AddrPort]int) []operation {
	var out []operation
	left := len(has.weights)
	for _, destination := range sortedDestinations(has.weights) {
		if want != nil && slices.Contains(want.endpoints, destination) {
			continue
		}
		if connections[destination] == 0 {
			out = append(out, operation{verb: deleteDestination, key: k, destination: destination})
			left--
		}
	}
	if want == nil && left == 0 {
		out = append(out, operation{verb: deleteService, key: k})
	}
	return out
}

// finished says whether nothing is left to finish.
func finished(want *virtual, has *present) bool {
	return has == nil || want != nil && len(has.weights) == len(want.endpoints)
}

func sortedDestinations(weights map[netip.AddrPort]int) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(weights))
	for destination := range weights {
		out = append(out, destination)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// apply is what the operation makes of what the kernel has.
func (o operation) apply(has map[key]*present) {
	switch o.verb {
	case addService:
		has[o.key] = &present{settings: o.settings, weights: map[netip.AddrPort]int{}}
	case editService:
		has[o.key].settings = o.settings
	case deleteService:
		delete(has, o.key)
	case addDestination, editDestination:
		has[o.key].weights[o.destination] = o.weight
	case deleteDestination:
		delete(has[o.key].weights, o.destination)
	}
}
