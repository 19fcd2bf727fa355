package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/cpuset"
)

// Resources is the part of the agent's configuration that says how much pods may take of the machine.
// Names, defaults and meaning are those of the kubelet's configuration file.
type Resources struct {
	// EnforceNodeAllocatable lists what is held to its amounts by cgroups: pods, system-reserved and kube-reserved, the
	// latter two also with -compressible, for CPU alone.
	EnforceNodeAllocatable []string `yaml:"enforceNodeAllocatable" help:"what is held to its amounts: none, pods, system-reserved, kube-reserved, or the latter with -compressible"`
	// SystemReserved and KubeReserved are kept from pods: cpu, memory, ephemeral-storage and pid.
	SystemReserved map[string]string `yaml:"systemReserved" help:"kept from pods for the system: cpu, memory, ephemeral-storage, pid"`
	KubeReserved   map[string]string `yaml:"kubeReserved" help:"kept from pods for Kubernetes' daemons: cpu, memory, ephemeral-storage, pid"`
	// SystemReservedCgroup and KubeReservedCgroup are existing cgroups, below the top.
	SystemReservedCgroup string `yaml:"systemReservedCgroup" help:"cgroup of the system's daemons, to hold to systemReserved"`
	KubeReservedCgroup   string `yaml:"kubeReservedCgroup" help:"cgroup of Kubernetes' daemons, to hold to kubeReserved"`
	// ReservedSystemCPUs are processors, such as 0-1, that pods get no exclusive use of; their number counts as reserved
	// CPU in place of what systemReserved and kubeReserved say.
	ReservedSystemCPUs string `yaml:"reservedSystemCPUs" help:"processors that pods get no exclusive use of, such as 0-1"`

	// EvictionHard replaces the defaults when it is given, unless MergeDefaultEvictionSettings.
	EvictionHard map[string]string `yaml:"evictionHard" help:"when pods are evicted at once, signal=threshold"`
	EvictionSoft map[string]string `yaml:"evictionSoft" help:"when pods are evicted after a grace period, signal=threshold"`
	// EvictionSoftGracePeriod has a duration for every signal of EvictionSoft.
	EvictionSoftGracePeriod map[string]string `yaml:"evictionSoftGracePeriod" help:"how long a soft threshold must be crossed, signal=duration"`
	// EvictionMinimumReclaim is how much more than the threshold is freed once eviction begins.
	EvictionMinimumReclaim map[string]string `yaml:"evictionMinimumReclaim" help:"how much beyond the threshold is freed, signal=amount"`
	// EvictionPressureTransitionPeriod is how long a pressure condition outlasts the pressure.
	EvictionPressureTransitionPeriod string `yaml:"evictionPressureTransitionPeriod" help:"how long a pressure condition outlasts the pressure"`
	// EvictionMaxPodGracePeriod bounds the grace period, in seconds, of pods evicted for a soft threshold.
	EvictionMaxPodGracePeriod    int  `yaml:"evictionMaxPodGracePeriod" help:"longest grace period of pods evicted for a soft threshold, in seconds"`
	MergeDefaultEvictionSettings bool `yaml:"mergeDefaultEvictionSettings" help:"keep default hard thresholds of signals that evictionHard does not name"`

	// PodPidsLimit bounds the processes of each pod; -1 for the kernel's limit alone.
	PodPidsLimit int `yaml:"podPidsLimit" help:"how many processes one pod may have; -1 for no limit"`
	// CPUCFSQuota enforces CPU limits, in periods of CPUCFSQuotaPeriod.
	CPUCFSQuota       bool   `yaml:"cpuCFSQuota" help:"enforce CPU limits"`
	CPUCFSQuotaPeriod string `yaml:"cpuCFSQuotaPeriod" help:"period in which CPU limits are enforced"`

	// CPUManagerPolicy static gives containers of guaranteed pods that ask for whole processors exclusive ones.
	CPUManagerPolicy string `yaml:"cpuManagerPolicy" help:"none or static"`

	MemorySwap MemorySwap `yaml:"memorySwap"`
}

// MemorySwap says what use pods may make of the machine's swap.
type MemorySwap struct {
	// SwapBehavior NoSwap: none. LimitedSwap: containers of burstable pods get a share in proportion to their memory request.
	SwapBehavior string `yaml:"swapBehavior" help:"NoSwap or LimitedSwap"`
}

func defaultResources() Resources {
	return Resources{
		EnforceNodeAllocatable:           []string{"pods"},
		EvictionPressureTransitionPeriod: "5m",
		PodPidsLimit:                     -1,
		CPUCFSQuota:                      true,
		CPUCFSQuotaPeriod:                "100ms",
		CPUManagerPolicy:                 "none",
		MemorySwap:                       MemorySwap{SwapBehavior: "NoSwap"},
	}
}

func (r *Resources) validate() field.ErrorList {
	var errs field.ErrorList
	for i, what := range r.EnforceNodeAllocatable {
		name := fmt.Sprintf("enforceNodeAllocatable[%d]", i)
		errs = append(errs, requireOneOf(name, what, "none", "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible")...)
		if what == "none" && len(r.EnforceNodeAllocatable) > 1 {
			errs = append(errs, field.Invalid(path(name), what, "must be alone"))
		}
		for _, reserved := range []struct{ what, cgroup, field string }{
			{"system-reserved", r.SystemReservedCgroup, "systemReservedCgroup"}, {"kube-reserved", r.KubeReservedCgroup, "kubeReservedCgroup"},
		} {
			if strings.TrimSuffix(what, "-compressible") == reserved.what && reserved.cgroup == "" {
				errs = append(errs, field.Required(path(reserved.field), "name the cgroup to enforce "+what+" on"))
			}
		}
	}
	for name, reserved := range map[string]map[string]string{"systemReserved": r.SystemReserved, "kubeReserved": r.KubeReserved} {
		for resourceName, amount := range reserved {
			at := path(name).Key(resourceName)
			if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage", "pid"}, resourceName) {
				errs = append(errs, field.NotSupported(at, resourceName, []string{"cpu", "memory", "ephemeral-storage", "pid"}))
			} else if q, err := resource.ParseQuantity(amount); err != nil || q.Sign() < 0 {
				errs = append(errs, field.Invalid(at, amount, "must be an amount such as 500m or 1Gi"))
			}
		}
	}
	if r.ReservedSystemCPUs != "" {
		if set, err := cpuset.Parse(r.ReservedSystemCPUs); err != nil || set.IsEmpty() {
			errs = append(errs, field.Invalid(path("reservedSystemCPUs"), r.ReservedSystemCPUs, "must be a list of processors such as 0-1,4"))
		}
		if r.SystemReservedCgroup != "" || r.KubeReservedCgroup != "" {
			errs = append(errs, field.Forbidden(path("reservedSystemCPUs"), "cannot be combined with systemReservedCgroup or kubeReservedCgroup"))
		}
	}
	_, thresholdErrs := r.Thresholds()
	errs = append(errs, thresholdErrs...)
	errs = append(errs, requireDuration("evictionPressureTransitionPeriod", r.EvictionPressureTransitionPeriod, time.Nanosecond, 24*time.Hour)...)
	if r.EvictionMaxPodGracePeriod < 0 {
		errs = append(errs, field.Invalid(path("evictionMaxPodGracePeriod"), r.EvictionMaxPodGracePeriod, "must not be negative"))
	}
	if r.PodPidsLimit == 0 || r.PodPidsLimit < -1 {
		errs = append(errs, field.Invalid(path("podPidsLimit"), r.PodPidsLimit, "must be positive, or -1 for no limit"))
	}
	errs = append(errs, requireDuration("cpuCFSQuotaPeriod", r.CPUCFSQuotaPeriod, time.Millisecond, time.Second)...)
	errs = append(errs, requireOneOf("cpuManagerPolicy", r.CPUManagerPolicy, "none", "static")...)
	if r.CPUManagerPolicy == "static" && r.ReservedSystemCPUs == "" && !r.reserves("cpu") {
		errs = append(errs, field.Required(path("reservedSystemCPUs"), "the static CPU manager policy needs reserved CPU: name processors here, or give cpu in systemReserved or kubeReserved"))
	}
	return append(errs, requireOneOf("memorySwap.swapBehavior", r.MemorySwap.SwapBehavior, "NoSwap", "LimitedSwap")...)
}

// reserves reports whether system or Kubernetes have some of a resource reserved.
func (r *Resources) reserves(name string) bool {
	for _, list := range []map[string]string{r.SystemReserved, r.KubeReserved} {
		if q, err := resource.ParseQuantity(list[name]); err == nil && q.Sign() > 0 {
			return true
		}
	}
	return false
}

// QuotaPeriod is CPUCFSQuotaPeriod in microseconds; 0 when CPU limits are not enforced.
func (r *Resources) QuotaPeriod() int64 {
	period, err := time.ParseDuration(r.CPUCFSQuotaPeriod)
	if err != nil || !r.CPUCFSQuota {
		return 0
	}
	return period.Microseconds()
}

// PressureTransition is EvictionPressureTransitionPeriod.
func (r *Resources) PressureTransition() time.Duration {
	period, err := time.ParseDuration(r.EvictionPressureTransitionPeriod)
	if err != nil {
		return 0
	}
	return period
}

func requireDuration(name, value string, least, most time.Duration) field.ErrorList {
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > most {
		return field.ErrorList{field.Invalid(path(name), value, fmt.Sprintf("must be a duration from %s to %s", least, most))}
	}
	return nil
}

// percentage reads "10%"; ok is false when the text is none.
func percentage(text string) (share float32, ok bool, err error) {
	number, ok := strings.CutSuffix(text, "%")
	if !ok {
		return 0, false, nil
	}
	value, err := strconv.ParseFloat(number, 32)
	if err != nil || value < 0 || value > 100 {
		return 0, true, fmt.Errorf("must be from 0%% to 100%%")
	}
	return float32(value) / 100, true, nil
}
