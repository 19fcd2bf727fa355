package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// leftovers are what an earlier process left in the kernel.
type leftovers struct {
	kernel *kernel // nil where IPVS is not loaded
	holder *holder
	held   []netip.Addr
	own    []netip.Addr // the machine's addresses that are not held
	// services are the virtual services of ours.
	services map[key]*present
}

func findLeftovers(ctx context.Context) (*leftovers, error) {
	l := &leftovers{}
	var err error
	if l.holder, err = openHolder(); err != nil {
		return nil, err
	}
	if l.held, l.own, err = l.holder.addresses(); err != nil {
		l.close()
		return nil, err
	}
	if available() {
		if err = l.findServices(ctx); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *leftovers) close() {
	l.holder.close()
	if l.kernel != nil {
		l.kernel.close()
	}
}

// findServices finds the virtual services that are recorded as ours or at an
// address on our device.
func (l *leftovers) findServices(ctx context.Context) error {
	recorded, err := readRecord(ctx)
	if err != nil {
		return err
	}
	if len(recorded) == 0 && len(l.held) == 0 {
		return nil
	}
	if l.kernel, err = openKernel(); err != nil {
		return err
	}
	all, err := l.kernel.services()
	if err != nil {
		return err
	}
	for k := range all {
		if !recorded[k] && !slices.Contains(l.held, k.address) {
			delete(all, k)
		}
	}
	l.services, err = l.kernel.present(all)
	return err
}

// readRecord reads which virtual services are ours.
func readRecord(ctx context.Context) (map[key]bool, error) {
	if _, err := exec.LookPath("ipset"); err != nil {
		return nil, nil // without the program no set of ours was ever made
	}
	headers, err := setHeaders(ctx)
	if err != nil {
		return nil, err
	}
	recorded := map[key]bool{}
	for _, family := range families {
		name := setName(family, recordedServices)
		if headers[name].kind != setKinds()[name] {
			continue
		}
		elements, err := readSet(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			k, err := parseKey(e.value)
			if err != nil {
				return nil, fmt.Errorf("read ipset %s: %w", name, err)
			}
			recorded[k] = true
		}
	}
	return recorded, nil
}

// parseKey reads an element of the type hash:ip,port.
func parseKey(element string) (key, error) {
	bad := fmt.Errorf("element %q is not an address, protocol and port", element)
	address, rest, _ := strings.Cut(element, ",")
	protocol, port, _ := strings.Cut(rest, ":")
	a, err := netip.ParseAddr(address)
	if err != nil {
		return key{}, bad
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return key{}, bad
	}
	k := key{corev1.Protocol(strings.ToUpper(protocol)), a, uint16(number)}
	if protocols[k.protocol] == 0 {
		return key{}, bad
	}
	return k, nil
}

// removeRules removes our chains from every variant of iptables.
func removeRules(ctx context.Context) error {
	var errs []error
	for _, family := range families {
		for _, f := range filters(family) {
			errs = append(errs, f.remove(ctx))
		}
	}
	return errors.Join(errs...)
}

// Cleanup removes our virtual services, device, rules and sets at once, and
// nothing else. It does nothing where there is nothing of ours.
func Cleanup(ctx context.Context) error {
	l, err := findLeftovers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	errs := []error{removeRules(ctx)}
	for k := range l.services {
		errs = append(errs, l.kernel.do(operation{verb: deleteService, key: k}))
	}
	errs = append(errs, l.holder.removeHolder())
	// The record goes last: it says what is to be removed.
	if errors.Join(errs...) == nil {
		errs = append(errs, removeSets(ctx))
	}
	return errors.Join(errs...)
}

// Retire removes what connections do not need, after another mode serves in
// place of this one. It returns false while connections live on: it is to be
// called again then.
func Retire(ctx context.Context) (bool, error) {
	l, err := findLeftovers(ctx)
	if err != nil {
		return false, err
	}
	defer l.close()
	// What is connected was masqueraded with its first packet.
	if err := removeRules(ctx); err != nil {
		return false, err
	}
	if err := l.drain(); err != nil {
		return false, err
	}
	if len(l.services) > 0 {
		return false, nil
	}
	if err := l.holder.removeHolder(); err != nil {
		return false, err
	}
	return true, removeSets(ctx)
}

// drain has no virtual service get new connections, and removes those that have
// none, with their addresses.
func (l *leftovers) drain() error {
	busy := map[netip.Addr]bool{}
	for _, k := range keys(l.services) {
		if err := l.do(reduce(k, nil, l.services[k])); err != nil {
			return err
		}
		if l.services[k] == nil {
			continue
		}
		destinations, err := l.kernel.destinations(k)
		if err != nil {
			return err
		}
		connections := make(map[netip.AddrPort]int, len(destinations))
		for address, d := range destinations {
			connections[address] = d.connections
		}
		if err := l.do(finish(k, nil, l.services[k], connections)); err != nil {
			return err
		}
		busy[k.address] = busy[k.address] || l.services[k] != nil
	}
	if len(l.held) == 0 {
		return nil
	}
	var err error
	if l.holder.link, err = l.holder.find(); err != nil {
		return err
	}
	for _, address := range l.held {
		if busy[address] {
			if source := l.holder.source(familyOf(address), l.own); source.IsValid() {
				if err := l.holder.setSource(address, source); err != nil {
					return err
				}
			}
		} else if err := errors.Join(l.holder.remove(address), l.holder.unsetSource(address)); err != nil {
			return err
		}
	}
	return nil
}

func (l *leftovers) do(operations []operation) error {
	for _, o := range operations {
		if err := l.kernel.do(o); err != nil {
			return err
		}
		o.apply(l.services)
	}
	return nil
}
