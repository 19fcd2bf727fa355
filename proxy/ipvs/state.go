package ipvs

import (
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// state is what is wanted, what the kernel has of it, and what of both may
// differ. It knows no kernel: the backend brings one to the other.
type state struct {
	environment
	ports map[string]programmed
	want  map[key]*virtual
	has   map[key]*present
	// elements and held count who wants each; what nobody wants is not in them.
	elements map[element]int
	held     map[netip.Addr]int
	// hasElements and hasHeld are what the kernel has.
	hasElements map[element]bool
	hasHeld     map[netip.Addr]bool
	// lingering are virtual services that nobody wants and whose connections live
	// on. They want their address and their record.
	lingering map[key]*rendered
	// unfinished are virtual services with destinations that nobody wants.
	unfinished map[key]bool
	toCluster  map[corev1.IPFamily][]string

	changedKeys     map[key]bool
	changedElements map[element]bool
	changedHeld     map[netip.Addr]bool
}

// programmed is a service port and what it was rendered to.
type programmed struct {
	port *table.ServicePort
	*rendered
}

// common is the name of what belongs to no service port.
const common = ""

func newState() *state {
	return &state{
		ports: map[string]programmed{}, want: map[key]*virtual{}, has: map[key]*present{},
		elements: map[element]int{}, held: map[netip.Addr]int{}, hasElements: map[element]bool{}, hasHeld: map[netip.Addr]bool{},
		lingering: map[key]*rendered{}, unfinished: map[key]bool{}, toCluster: map[corev1.IPFamily][]string{},
		changedKeys: map[key]bool{}, changedElements: map[element]bool{}, changedHeld: map[netip.Addr]bool{},
	}
}

// found tells the state of what the kernel has before the first sync.
func (s *state) found(elements map[element]bool, held []netip.Addr) {
	s.hasElements = elements
	for e := range elements {
		s.changedElements[e] = true
	}
	for _, address := range held {
		s.hasHeld[address] = true
		s.changedHeld[address] = true
	}
}

// update renders what changed since the last update.
func (s *state) update(t *table.Table, scheduler string, env environment) {
	same := s.equal(env)
	s.environment = env
	r := &renderer{scheduler: scheduler, environment: env, detours: detourPorts(t.Ports)}
	there := make(map[string]bool, len(t.Ports))
	for _, port := range t.Ports {
		there[port.Name] = true
		old, was := s.ports[port.Name]
		if was && old.port == port && same {
			continue
		}
		s.replace(port.Name, programmed{port, r.render(port)})
	}
	for name := range s.ports {
		if !there[name] && name != common {
			s.replace(name, programmed{})
		}
	}
	if fixed := renderCommon(t, env); s.ports[common].rendered == nil || !slices.Equal(s.ports[common].elements, fixed.elements) {
		s.replace(common, programmed{rendered: fixed})
	}
	s.collectRules(t)
}

// renderCommon renders the node's addresses and the ports of health checks.
func renderCommon(t *table.Table, env environment) *rendered {
	out := &rendered{}
	for _, address := range env.nodePorts {
		out.element(familyOf(address), nodeIPs, address.String())
	}
	for _, check := range t.HealthChecks {
		for _, family := range families {
			out.element(family, healthCheckPorts, strconv.Itoa(int(check.Port)))
		}
	}
	return out
}

// replace replaces what a service port was rendered to; by nothing, if that is empty.
func (s *state) replace(name string, by programmed) {
	old := s.ports[name]
	if by.rendered != nil {
		for _, v := range by.virtuals {
			s.want[v.key] = v
			s.changedKeys[v.key] = true
		}
		s.count(by.rendered, 1)
		s.ports[name] = by
	} else {
		delete(s.ports, name)
	}
	if old.rendered != nil {
		for _, v := range old.virtuals {
			// Another service port may have it by now.
			if s.want[v.key] == v {
				delete(s.want, v.key)
				s.changedKeys[v.key] = true
			}
		}
		s.count(old.rendered, -1)
	}
}

// count adds to who wants elements and addresses.
func (s *state) count(r *rendered, n int) {
	for _, e := range r.elements {
		s.changedElements[e] = true
		if s.elements[e] += n; s.elements[e] == 0 {
			delete(s.elements, e)
		}
	}
	for _, address := range r.held {
		s.changedHeld[address] = true
		if s.held[address] += n; s.held[address] == 0 {
			delete(s.held, address)
		}
	}
}

// collectRules gathers the rules of the policy Local, in the order of the ports.
func (s *state) collectRules(t *table.Table) {
	s.toCluster = map[corev1.IPFamily][]string{}
	for _, port := range t.Ports {
		if rules := s.ports[port.Name].toCluster; rules != nil {
			s.toCluster[port.Family()] = append(s.toCluster[port.Family()], rules...)
		}
	}
}

// linger keeps the address and the record of virtual services that nobody wants
// as long as the kernel has them.
func (s *state) linger() {
	for k := range s.changedKeys {
		kept := s.lingering[k]
		lingers := s.want[k] == nil && s.has[k] != nil
		switch {
		case lingers && kept == nil:
			kept = &rendered{}
			kept.element(familyOf(k.address), recordedServices, k.element())
			if s.hasHeld[k.address] {
				kept.held = []netip.Addr{k.address}
				kept.element(familyOf(k.address), heldIPs, k.address.String())
			}
			s.lingering[k] = kept
			s.count(kept, 1)
		case !lingers && kept != nil:
			delete(s.lingering, k)
			s.count(kept, -1)
		}
		if finished(s.want[k], s.has[k]) {
			delete(s.unfinished, k)
		} else {
			s.unfinished[k] = true
		}
	}
}

// missingElements are lines that add what sets lack, excessElements those that
// remove what nobody wants.
func (s *state) missingElements() []element {
	return s.elementsThat(func(e element) bool { return s.elements[e] > 0 && !s.hasElements[e] })
}

func (s *state) excessElements() []element {
	return s.elementsThat(func(e element) bool { return s.elements[e] == 0 && s.hasElements[e] })
}

func (s *state) elementsThat(differ func(element) bool) []element {
	var out []element
	for e := range s.changedElements {
		if differ(e) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareElements)
	return out
}

// missingHeld and excessHeld are addresses to hold, and no longer to hold.
func (s *state) missingHeld() []netip.Addr {
	return s.heldThat(func(a netip.Addr) bool { return s.held[a] > 0 && !s.hasHeld[a] })
}

func (s *state) excessHeld() []netip.Addr {
	return s.heldThat(func(a netip.Addr) bool { return s.held[a] == 0 && s.hasHeld[a] })
}

func (s *state) heldThat(differ func(netip.Addr) bool) []netip.Addr {
	var out []netip.Addr
	for a := range s.changedHeld {
		if differ(a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// keysInOrder are the virtual services that may differ.
func (s *state) keysInOrder() []key {
	out := keys(s.changedKeys)
	slices.SortFunc(out, compareKeys)
	return out
}

// settled says that the kernel has what is wanted.
func (s *state) settled() {
	clear(s.changedKeys)
	clear(s.changedElements)
	clear(s.changedHeld)
}
