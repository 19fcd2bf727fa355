package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/allocator"
)

const (
	// mostAddresses bounds the record of a large range, which is one bit an address.
	mostAddresses = 1 << 16
	// repairInterval is how often the records are compared with the services, upstream's figure.
	repairInterval = 3 * time.Minute
)

// serviceNumbers gives services their addresses and node ports and takes them back.
type serviceNumbers struct {
	cidr      netip.Prefix
	addresses *allocator.Range
	firstPort int
	ports     *allocator.Range
	services  *registry.Store[*corev1.Service]
}

func newServiceNumbers(deps *registry.Dependencies) (*serviceNumbers, error) {
	n := &serviceNumbers{cidr: deps.ServiceCIDR.Masked(), firstPort: deps.NodePorts.Base}
	store, err := rangeStorage(deps)
	if err != nil {
		return nil, err
	}
	size := mostAddresses
	if bits := n.cidr.Addr().BitLen() - n.cidr.Bits(); bits < 16 {
		size = 1 << bits
	}
	// The network's own address, the API's and cluster DNS's are nobody else's;
	// neither is the last one, which is broadcast's.
	reserved := []int{0, 1, size - 1}
	if deps.DNSAddress.IsValid() {
		reserved = append(reserved, n.offset(deps.DNSAddress))
	}
	n.addresses = allocator.New(store, "/ranges/serviceips", n.cidr.String(), size, reserved...)
	n.ports = allocator.New(store, "/ranges/servicenodeports", deps.NodePorts.String(), deps.NodePorts.Size)
	return n, nil
}

// rangeStorage keeps the records of what is taken.
func rangeStorage(deps *registry.Dependencies) (storage.Interface, error) {
	options, err := deps.RESTOptions.GetRESTOptions(schema.GroupResource{Resource: "rangeallocations"}, &corev1.RangeAllocation{})
	if err != nil {
		return nil, fmt.Errorf("storage of service addresses: %w", err)
	}
	store, _, err := options.Decorator(options.StorageConfig, "/ranges", func(runtime.Object) (string, error) { return "/ranges", nil },
		func() runtime.Object { return &corev1.RangeAllocation{} }, nil,
		storage.DefaultClusterScopedAttr, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("storage of service addresses: %w", err)
	}
	return store, nil
}

// offset is an address's place in the range; -1 when it is not in it.
func (n *serviceNumbers) offset(address netip.Addr) int {
	if !n.cidr.Contains(address) {
		return -1
	}
	difference := new(big.Int).Sub(new(big.Int).SetBytes(address.AsSlice()), new(big.Int).SetBytes(n.cidr.Addr().AsSlice()))
	if !difference.IsInt64() || difference.Int64() > math.MaxInt32 {
		return -1
	}
	return int(difference.Int64())
}

func (n *serviceNumbers) address(offset int) string {
	value := new(big.Int).Add(new(big.Int).SetBytes(n.cidr.Addr().AsSlice()), big.NewInt(int64(offset)))
	address, _ := netip.AddrFromSlice(value.FillBytes(make([]byte, n.cidr.Addr().BitLen()/8)))
	return address.String()
}

// taken collects what a request has taken, to give it back if it fails.
type taken struct {
	numbers          *serviceNumbers
	addresses, ports []int
}

func (t *taken) giveBack(ctx context.Context) {
	// The request may be over; what is taken must not stay so.
	ctx = context.WithoutCancel(ctx)
	for _, offset := range t.addresses {
		if err := t.numbers.addresses.Free(ctx, offset); err != nil {
			slog.Warn("a service address could not be given back; the repair will", "address", t.numbers.address(offset), "error", err)
		}
	}
	for _, offset := range t.ports {
		if err := t.numbers.ports.Free(ctx, offset); err != nil {
			slog.Warn("a node port could not be given back; the repair will", "port", t.numbers.firstPort+offset, "error", err)
		}
	}
}

func (n *serviceNumbers) beginCreate(ctx context.Context, s *corev1.Service, options *metav1.CreateOptions) (func(context.Context, bool), error) {
	n.setFamilies(s)
	got := &taken{numbers: n}
	if err := n.give(ctx, s, nil, got, len(options.DryRun) > 0); err != nil {
		got.giveBack(ctx)
		return nil, err
	}
	return func(ctx context.Context, success bool) {
		if !success {
			got.giveBack(ctx)
		}
	}, nil
}

func (n *serviceNumbers) beginUpdate(ctx context.Context, s, old *corev1.Service, options *metav1.UpdateOptions) (func(context.Context, bool), error) {
	n.setFamilies(s)
	dry := len(options.DryRun) > 0
	got := &taken{numbers: n}
	if err := n.give(ctx, s, old, got, dry); err != nil {
		got.giveBack(ctx)
		return nil, err
	}
	return func(ctx context.Context, success bool) {
		switch {
		case !success:
			got.giveBack(ctx)
		case !dry:
			n.difference(old, s).giveBack(ctx)
		}
	}, nil
}

func (n *serviceNumbers) afterDelete(s *corev1.Service, options *metav1.DeleteOptions) {
	if options != nil && len(options.DryRun) > 0 {
		return
	}
	n.difference(s, nil).giveBack(context.Background())
}

// setFamilies: services have the one family of their range.
func (n *serviceNumbers) setFamilies(s *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if s.Spec.IPFamilyPolicy == nil {
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
		if s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0 {
			s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		}
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{familyOf(n.cidr)}
	}
}

// give takes the numbers the service needs and old did not have.
func (n *serviceNumbers) give(ctx context.Context, s, old *corev1.Service, got *taken, dry bool) error {
	if wantsClusterIP(s) && (old == nil || !wantsClusterIP(old)) {
		if err := n.giveAddress(ctx, s, got, dry); err != nil {
			return err
		}
	}
	had := map[int32]bool{}
	if old != nil {
		for _, port := range nodePorts(old) {
			had[port] = true
		}
	}
	return n.givePorts(ctx, s, had, got, dry)
}

func (n *serviceNumbers) giveAddress(ctx context.Context, s *corev1.Service, got *taken, dry bool) error {
	invalid := func(format string, args ...any) error {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs, fmt.Sprintf(format, args...)),
		})
	}
	if s.Spec.ClusterIP != "" {
		address, err := netip.ParseAddr(s.Spec.ClusterIP)
		if err != nil {
			return invalid("must be a valid IP address: %v", err)
		}
		offset := n.offset(address)
		if offset < 0 {
			return invalid("failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s", address, address, n.cidr)
		}
		if dry {
			return nil
		}
		if err := n.addresses.Take(ctx, offset); errors.Is(err, allocator.ErrAllocated) {
			return invalid("failed to allocate IP %s: provided IP is already allocated", address)
		} else if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate IP %s: %w", address, err))
		}
		got.addresses = append(got.addresses, offset)
		return nil
	}
	if dry {
		return nil
	}
	offset, err := n.addresses.Next(ctx)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
	}
	got.addresses = append(got.addresses, offset)
	s.Spec.ClusterIP = n.address(offset)
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	return nil
}

// givePorts gives each port its node port. Ports that differ only in protocol
// may share one, as for DNS.
func (n *serviceNumbers) givePorts(ctx context.Context, s *corev1.Service, had map[int32]bool, got *taken, dry bool) error {
	if wantsNodePorts(s) {
		mine := map[int32]bool{}
		for i := range s.Spec.Ports {
			if err := n.givePort(ctx, s, &s.Spec.Ports[i].NodePort, field.NewPath("spec", "ports").Index(i).Child("nodePort"), had, mine, got, dry); err != nil {
				return err
			}
		}
	}
	if wantsHealthCheckPort(s) {
		return n.givePort(ctx, s, &s.Spec.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"), had, map[int32]bool{}, got, dry)
	}
	return nil
}

func (n *serviceNumbers) givePort(ctx context.Context, s *corev1.Service, port *int32, path *field.Path, had, mine map[int32]bool, got *taken, dry bool) error {
	if *port != 0 && (had[*port] || mine[*port]) {
		mine[*port] = true
		return nil
	}
	if dry {
		return nil
	}
	if *port == 0 {
		offset, err := n.ports.Next(ctx)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
		got.ports = append(got.ports, offset)
		*port = int32(n.firstPort + offset)
		mine[*port] = true
		return nil
	}
	err := n.ports.Take(ctx, int(*port)-n.firstPort)
	if err == nil {
		got.ports = append(got.ports, int(*port)-n.firstPort)
		mine[*port] = true
		return nil
	}
	message := "provided port is already allocated"
	if !errors.Is(err, allocator.ErrAllocated) {
		message = fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %s", n.portRange())
	}
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, field.ErrorList{field.Invalid(path, *port, message)})
}

func (n *serviceNumbers) portRange() string {
	return fmt.Sprintf("%d-%d", n.firstPort, n.firstPort+n.portCount()-1)
}

func (n *serviceNumbers) portCount() int { return n.ports.Size() }

// nodePorts are the ports of the node that a service has.
func nodePorts(s *corev1.Service) []int32 {
	var ports []int32
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 {
			ports = append(ports, port.NodePort)
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		ports = append(ports, s.Spec.HealthCheckNodePort)
	}
	return ports
}

// difference is what old has and now, which may be nil, does not.
func (n *serviceNumbers) difference(old, now *corev1.Service) *taken {
	gone := &taken{numbers: n}
	keep := map[int32]bool{}
	if now != nil {
		for _, port := range nodePorts(now) {
			keep[port] = true
		}
	}
	for _, port := range nodePorts(old) {
		if !keep[port] {
			keep[port] = true
			gone.ports = append(gone.ports, int(port)-n.firstPort)
		}
	}
	if !wantsClusterIP(old) || now != nil && wantsClusterIP(now) {
		return gone
	}
	if address, err := netip.ParseAddr(old.Spec.ClusterIP); err == nil && n.offset(address) >= 0 {
		gone.addresses = append(gone.addresses, n.offset(address))
	}
	return gone
}

// repair keeps the records in line with the services until ctx ends.
func (n *serviceNumbers) repair(ctx context.Context) {
	var addresses, ports map[int]bool
	for {
		next := repairInterval
		usedAddresses, usedPorts, err := n.used(ctx)
		if err == nil {
			var addressErr, portErr error
			addresses, addressErr = n.addresses.Repair(ctx, usedAddresses, addresses)
			ports, portErr = n.ports.Repair(ctx, usedPorts, ports)
			err = errors.Join(addressErr, portErr)
		}
		if err != nil && ctx.Err() == nil {
			next = time.Second
			slog.Warn("comparing service addresses with services failed; it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// used are the numbers that the stored services have.
func (n *serviceNumbers) used(ctx context.Context) (addresses, ports map[int]bool, err error) {
	object, err := n.services.List(genericapirequest.WithNamespace(ctx, metav1.NamespaceAll), &internalversion.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list services: %w", err)
	}
	list, ok := object.(*corev1.ServiceList)
	if !ok {
		return nil, nil, fmt.Errorf("list services: got %T", object)
	}
	addresses, ports = map[int]bool{}, map[int]bool{}
	for i := range list.Items {
		all := n.difference(&list.Items[i], nil)
		for _, offset := range all.addresses {
			addresses[offset] = true
		}
		for _, offset := range all.ports {
			if offset >= 0 && offset < n.portCount() {
				ports[offset] = true
			}
		}
	}
	return addresses, ports, nil
}
