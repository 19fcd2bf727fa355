package resources

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"

	"github.com/skiff-run/skiff/internal/config"
)

// PIDs is the resource of process ids, which reservations name and nodes do not report.
const PIDs v1.ResourceName = "pid"

// Reservations are what the configuration keeps from pods.
type Reservations struct {
	System, Kube v1.ResourceList
	// Eviction is what is kept free by evicting pods.
	Eviction v1.ResourceList
}

// NewReservations reads a valid configuration. It fails when more is reserved than there is.
func NewReservations(c *config.Resources, capacity v1.ResourceList) (Reservations, error) {
	r := Reservations{System: parse(c.SystemReserved), Kube: parse(c.KubeReserved), Eviction: v1.ResourceList{}}
	if c.ReservedSystemCPUs != "" {
		set, err := cpuset.Parse(c.ReservedSystemCPUs)
		if err != nil {
			return r, fmt.Errorf("reservedSystemCPUs: %w", err)
		}
		r.System[v1.ResourceCPU] = *resource.NewQuantity(int64(set.Size()), resource.DecimalSI)
		delete(r.Kube, v1.ResourceCPU)
	}
	thresholds, errs := c.Thresholds()
	if len(errs) > 0 {
		return r, errs.ToAggregate()
	}
	for _, t := range thresholds {
		name := map[string]v1.ResourceName{"memory.available": v1.ResourceMemory, "nodefs.available": v1.ResourceEphemeralStorage}[t.Signal]
		if name == "" || t.GracePeriod > 0 {
			continue
		}
		has := capacity[name]
		r.Eviction[name] = *t.Value.Of(has.Value())
	}
	for name, has := range capacity {
		if reserved := r.of(name); reserved.Cmp(has) > 0 {
			return r, fmt.Errorf("resource %q has a reservation of %v but capacity of %v. Expected capacity >= reservation; lower systemReserved, kubeReserved or evictionHard", name, reserved.String(), has.String())
		}
	}
	return r, nil
}

func parse(list map[string]string) v1.ResourceList {
	parsed := v1.ResourceList{}
	for name, amount := range list {
		if q, err := resource.ParseQuantity(amount); err == nil {
			parsed[v1.ResourceName(name)] = q
		}
	}
	return parsed
}

// CPUs is how many whole processors the reserved CPU takes.
func (r Reservations) CPUs() int {
	q := r.of(v1.ResourceCPU)
	return int(q.Value())
}

func (r Reservations) of(name v1.ResourceName) resource.Quantity {
	sum := resource.Quantity{}
	for _, list := range []v1.ResourceList{r.System, r.Kube, r.Eviction} {
		sum.Add(list[name])
	}
	return sum
}

// Allocatable is what the node offers to pods of its capacity. Memory that was made huge pages is not there
// for anything else.
func (r Reservations) Allocatable(capacity v1.ResourceList) v1.ResourceList {
	a := capacity.DeepCopy()
	for name, q := range a {
		q.Sub(r.of(name))
		a[name] = atLeastZero(q)
	}
	memory := a[v1.ResourceMemory]
	for name, q := range capacity {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			memory.Sub(q)
		}
	}
	a[v1.ResourceMemory] = atLeastZero(memory)
	return a
}

// Enforced is what the cgroup of all pods is held to: reservations are kept from it, but not what eviction
// keeps free, which needs room to act.
func (r Reservations) Enforced(capacity v1.ResourceList) v1.ResourceList {
	return Reservations{System: r.System, Kube: r.Kube}.subtract(capacity)
}

func (r Reservations) subtract(capacity v1.ResourceList) v1.ResourceList {
	left := v1.ResourceList{}
	for name, q := range capacity {
		q = q.DeepCopy()
		q.Sub(r.of(name))
		left[name] = atLeastZero(q)
	}
	return left
}

func atLeastZero(q resource.Quantity) resource.Quantity {
	if q.Sign() < 0 {
		q.Set(0)
	}
	return q
}
