package ipvs

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// fake is a kernel that does what it is told, and the state that tells it.
type fake struct {
	*state
	// connections of destinations.
	connections map[netip.AddrPort]int
	own         []netip.Addr
	// operations is how many the last sync took, of IPVS, sets and addresses.
	operations int
}

func newFake() *fake {
	return &fake{state: newState(), own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
}

// sync does what the backend does with a kernel.
func (f *fake) sync(t *testing.T, ports ...table.ServicePort) {
	t.Helper()
	f.operations = 0
	f.update(tableOf(ports...), "rr", environmentOf(f.own, tableOf().NodePortRanges))
	for _, e := range f.missingElements() {
		f.hasElements[e] = true
		f.operations++
	}
	do := func(operations []operation) {
		for _, o := range operations {
			o.apply(f.has)
			f.operations++
		}
	}
	for _, k := range f.keysInOrder() {
		if want := f.want[k]; want != nil {
			if !f.hasElements[element{setName(familyOf(k.address), recordedServices), k.element()}] {
				t.Errorf("%s is made before it is recorded as ours", k)
			}
			do(extend(want, f.has[k]))
		}
	}
	for _, address := range f.missingHeld() {
		f.hasHeld[address] = true
		f.operations++
	}
	f.reduce(do)
}

// reduce is the end of a sync, and what a check does.
func (f *fake) reduce(do func([]operation)) {
	for k := range f.unfinished {
		f.changedKeys[k] = true
	}
	for _, k := range f.keysInOrder() {
		if f.has[k] != nil {
			do(reduce(k, f.want[k], f.has[k]))
		}
		if !finished(f.want[k], f.has[k]) {
			do(finish(k, f.want[k], f.has[k], f.connections))
		}
	}
	f.linger()
	for _, address := range f.excessHeld() {
		delete(f.hasHeld, address)
		f.operations++
	}
	for _, e := range f.excessElements() {
		delete(f.hasElements, e)
		f.operations++
	}
	f.settled()
}

// dump is what the kernel has, in order.
func (f *fake) dump() string {
	var lines []string
	for k, p := range f.has {
		lines = append(lines, operation{verb: addService, key: k, settings: p.settings}.String())
		for destination, weight := range p.weights {
			lines = append(lines, operation{verb: addDestination, key: k, destination: destination, weight: weight}.String())
		}
	}
	for e := range f.hasElements {
		lines = append(lines, e.add())
	}
	for address := range f.hasHeld {
		lines = append(lines, "hold "+address.String())
	}
	for _, rules := range f.toCluster {
		lines = append(lines, rules...)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func tableOf(ports ...table.ServicePort) *table.Table {
	t := &table.Table{NodePortRanges: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	for _, port := range ports {
		t.Ports = append(t.Ports, &port)
	}
	return t
}

func port(name, clusterIP string, endpoints ...string) table.ServicePort {
	p := table.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, ClusterIP: netip.MustParseAddr(clusterIP), Port: 80, HasEndpoints: len(endpoints) > 0}
	for _, e := range endpoints {
		p.Cluster = append(p.Cluster, table.Endpoint{Address: netip.MustParseAddrPort(e)})
	}
	return p
}

func with(p table.ServicePort, change func(*table.ServicePort)) table.ServicePort {
	change(&p)
	return p
}

// The state after any path of changes is the state from scratch, once the
// connections are gone; and what comes again the same is no change.
func TestTheWayDoesNotMatter(t *testing.T) {
	t.Parallel()
	web := port("default/web:", "10.96.0.5", "10.244.0.2:80", "10.244.0.3:80")
	nodePort := func(p *table.ServicePort) { p.NodePort = 30080 }
	external := func(p *table.ServicePort) { p.ExternalIPs = []netip.Addr{netip.MustParseAddr("203.0.113.5")} }
	local := func(p *table.ServicePort) {
		nodePort(p)
		external(p)
		p.ExternalLocal, p.Local = true, p.Cluster[:1]
	}
	states := [][]table.ServicePort{
		{web},
		{with(web, nodePort)},
		{with(web, local)},
		{with(web, func(p *table.ServicePort) { local(p); p.InternalLocal = true })},
		{with(web, func(p *table.ServicePort) { p.Affinity = time.Hour }), port("default/api:", "10.96.0.6", "10.244.0.2:80")},
		{port("default/web:", "10.96.0.5")},
		{with(port("default/web:", "10.96.0.5"), nodePort)},
		{with(web, external)},
		{with(port("default/other:", "10.96.0.7", "10.244.0.7:80"), external), web},
		{port("default/other:", "10.96.0.5", "10.244.0.7:80")},
		{with(web, func(p *table.ServicePort) { p.Protocol = corev1.ProtocolUDP })},
		{port("default/web:/ipv6", "fd00:10:96::5", "[fd00:10:244::2]:80")},
		{},
	}
	walked := newFake()
	for i, state := range append(states, states[4], states[3], states[0]) {
		walked.sync(t, state...)
		fresh := newFake()
		fresh.sync(t, state...)
		if got, want := walked.dump(), fresh.dump(); got != want {
			t.Fatalf("step %d:\n%s\nwant\n%s", i, got, want)
		}
		if walked.sync(t, state...); walked.operations != 0 {
			t.Errorf("step %d: the same again takes %d operations", i, walked.operations)
		}
	}
}

func TestWhatChangesIsAllThatIsDone(t *testing.T) {
	t.Parallel()
	f := newFake()
	var many []table.ServicePort
	for i := range 100 {
		many = append(many, port(fmt.Sprintf("default/s%d:", i), fmt.Sprintf("10.96.1.%d", i), "10.244.0.2:80"))
	}
	f.sync(t, many...)
	many[7] = port(many[7].Name, "10.96.1.7", "10.244.0.2:80", "10.244.0.3:80")
	if f.sync(t, many...); f.operations != 1 {
		t.Errorf("one more endpoint takes %d operations", f.operations)
	}
	many[7] = port(many[7].Name, "10.96.1.7", "10.244.0.2:80")
	if f.sync(t, many...); f.operations != 2 {
		t.Errorf("one endpoint less takes %d operations, not weight 0 and the removal", f.operations)
	}
}

func TestConnectionsKeepWhatTheyNeed(t *testing.T) {
	t.Parallel()
	for name, after := range map[string][]table.ServicePort{
		"the endpoint is gone": {port("default/web:", "10.96.0.5", "10.244.0.3:80")},
		"no endpoint is left":  {port("default/web:", "10.96.0.5")},
		"the service is gone":  {},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			old := netip.MustParseAddrPort("10.244.0.2:80")
			f.sync(t, port("default/web:", "10.96.0.5", old.String()))
			f.connections = map[netip.AddrPort]int{old: 1}
			f.sync(t, after...)
			k := key{corev1.ProtocolTCP, netip.MustParseAddr("10.96.0.5"), 80}
			if weight, there := f.has[k].weights[old]; !there || weight != 0 {
				t.Fatalf("the destination has the weight %d (there: %v), not 0:\n%s", weight, there, f.dump())
			}
			if !f.hasHeld[k.address] || !f.hasElements[element{"KUBE-IPVS-SERVICES", k.element()}] {
				t.Errorf("the address or the record is gone:\n%s", f.dump())
			}
			f.connections = nil
			f.reduce(func(operations []operation) {
				for _, o := range operations {
					o.apply(f.has)
				}
			})
			fresh := newFake()
			fresh.sync(t, after...)
			if got, want := f.dump(), fresh.dump(); got != want || len(f.unfinished) > 0 {
				t.Errorf("after the connections are gone, with %v unfinished:\n%s\nwant\n%s", f.unfinished, got, want)
			}
		})
	}
}

func TestUDPDestinationsGoAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	udp := func(p *table.ServicePort) { p.Protocol = corev1.ProtocolUDP }
	f.sync(t, with(port("default/dns:", "10.96.0.5", "10.244.0.2:53"), udp))
	f.connections = map[netip.AddrPort]int{netip.MustParseAddrPort("10.244.0.2:53"): 9}
	f.sync(t)
	if dump := f.dump(); strings.Contains(dump, "10.96.0.5") {
		t.Errorf("left:\n%s", dump)
	}
}

// What an earlier process left is taken over, and removed if nobody wants it.
func TestAnEarlierRunIsTakenOver(t *testing.T) {
	t.Parallel()
	before := newFake()
	before.sync(t, port("default/web:", "10.96.0.5", "10.244.0.2:80"), port("default/old:", "10.96.0.9", "10.244.0.9:80"))
	f := newFake()
	f.found(maps.Clone(before.hasElements), keys(before.hasHeld))
	f.has = before.has
	for k := range f.has {
		f.changedKeys[k] = true
	}
	f.sync(t, port("default/web:", "10.96.0.5", "10.244.0.2:80"))
	fresh := newFake()
	fresh.sync(t, port("default/web:", "10.96.0.5", "10.244.0.2:80"))
	if got, want := f.dump(), fresh.dump(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestOwnAddressesAreNotHeld(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.sync(t, with(port("default/web:", "10.96.0.5", "10.244.0.2:80"), func(p *table.ServicePort) { p.ExternalIPs = f.own }))
	if f.hasHeld[f.own[0]] || f.hasElements[element{"KUBE-IPVS-IPS", "192.0.2.1"}] {
		t.Errorf("an address of the machine is held, so that what listens there is refused:\n%s", f.dump())
	}
	if f.has[key{corev1.ProtocolTCP, f.own[0], 80}] == nil {
		t.Errorf("it is not served:\n%s", f.dump())
	}
}
