package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// RuntimeHandler says how containerd runs the pods of a RuntimeClass.
type RuntimeHandler struct {
	// Type is the containerd runtime, such as io.containerd.kata.v2; runc's when empty.
	Type string `yaml:"type"`
	// Binary is the OCI program of a runc-like runtime, such as crun; runc when empty.
	Binary string `yaml:"binary"`
}

// ShutdownPriority gives pods of a priority from this one up to the next entry's
// some seconds to end when the machine is shut down.
type ShutdownPriority struct {
	Priority                   int32 `yaml:"priority"`
	ShutdownGracePeriodSeconds int64 `yaml:"shutdownGracePeriodSeconds"`
}

// Taints are those of registerWithTaints, which Validate has checked.
func (c *Agent) Taints() []corev1.Taint {
	var taints []corev1.Taint
	for _, text := range c.RegisterWithTaints {
		if t, err := parseTaint(text); err == nil {
			taints = append(taints, t)
		}
	}
	return taints
}

// parseTaint reads key=value:effect, key:effect or key=:effect.
func parseTaint(text string) (corev1.Taint, error) {
	head, effect, ok := strings.Cut(text, ":")
	t := corev1.Taint{Effect: corev1.TaintEffect(effect)}
	t.Key, t.Value, _ = strings.Cut(head, "=")
	if !ok || !slices.Contains([]corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}, t.Effect) {
		return t, fmt.Errorf("must be key=value:effect, with the effect NoSchedule, PreferNoSchedule or NoExecute")
	}
	messages := append(validation.IsQualifiedName(t.Key), validation.IsValidLabelValue(t.Value)...)
	if len(messages) > 0 {
		return t, fmt.Errorf("%s", strings.Join(messages, "; "))
	}
	return t, nil
}

// Duration is the value of a field that Validate has checked.
func Duration(value string) time.Duration {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0
	}
	return d
}

// LogMaxBytes is containerLogMaxSize in bytes.
func (c *Agent) LogMaxBytes() int64 {
	q, err := resource.ParseQuantity(c.ContainerLogMaxSize)
	if err != nil {
		return 0
	}
	return q.Value()
}

// ParallelPulls is how many images are pulled at a time; 0 for any number.
func (c *Agent) ParallelPulls() int {
	if c.SerializeImagePulls {
		return 1
	}
	return c.MaxParallelImagePulls
}

// ShutdownPriorities are how long pods may take to end when the machine is shut
// down, in order of their priority; none: it is not delayed.
func (c *Agent) ShutdownPriorities() []ShutdownPriority {
	if len(c.ShutdownGracePeriodByPodPriority) > 0 {
		list := slices.Clone(c.ShutdownGracePeriodByPodPriority)
		slices.SortFunc(list, func(a, b ShutdownPriority) int { return int(a.Priority) - int(b.Priority) })
		return list
	}
	all, critical := Duration(c.ShutdownGracePeriod), Duration(c.ShutdownGracePeriodCriticalPods)
	if all <= 0 {
		return nil
	}
	// From this priority on a pod is critical.
	const systemCritical = 2000000000
	return []ShutdownPriority{
		{Priority: 0, ShutdownGracePeriodSeconds: int64((all - critical) / time.Second)},
		{Priority: systemCritical, ShutdownGracePeriodSeconds: int64(critical / time.Second)},
	}
}

func parseDuration(name, value string) (time.Duration, field.ErrorList) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, field.ErrorList{field.Invalid(path(name), value, "must be a time such as 30s or 2m")}
	}
	return d, nil
}

func requireAtLeast(name string, value, least int) field.ErrorList {
	if value < least {
		return field.ErrorList{field.Invalid(path(name), value, fmt.Sprintf("must be at least %d", least))}
	}
	return nil
}

// validateNode checks what concerns the Node object, logs and the machine's end.
func (c *Agent) validateNode() field.ErrorList {
	var errs field.ErrorList
	for i, text := range c.RegisterWithTaints {
		if _, err := parseTaint(text); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("registerWithTaints").Index(i), text, err.Error()))
		}
	}
	for key, value := range c.NodeLabels {
		for _, message := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
			errs = append(errs, field.Invalid(field.NewPath("nodeLabels").Key(key), value, message))
		}
	}
	errs = append(errs, requireAtLeast("nodeStatusMaxImages", c.NodeStatusMaxImages, -1)...)
	if q, err := resource.ParseQuantity(c.ContainerLogMaxSize); err != nil || q.Value() < 1 {
		errs = append(errs, field.Invalid(path("containerLogMaxSize"), c.ContainerLogMaxSize, "must be a size such as 10Mi"))
	}
	errs = append(errs, requireAtLeast("containerLogMaxFiles", c.ContainerLogMaxFiles, 2)...)
	for name, h := range c.RuntimeHandlers {
		at := field.NewPath("runtimeHandlers").Key(name)
		for _, message := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(at, name, message))
		}
		if h.Type == "" && h.Binary == "" {
			errs = append(errs, field.Required(at, "give type, the containerd runtime, or binary, the OCI program, or both"))
		}
	}
	return append(errs, c.validateShutdown()...)
}

func (c *Agent) validateShutdown() field.ErrorList {
	all, errs := parseDuration("shutdownGracePeriod", c.ShutdownGracePeriod)
	critical, more := parseDuration("shutdownGracePeriodCriticalPods", c.ShutdownGracePeriodCriticalPods)
	errs = append(errs, more...)
	switch {
	case len(errs) > 0:
	case critical > all:
		errs = append(errs, field.Invalid(path("shutdownGracePeriodCriticalPods"), c.ShutdownGracePeriodCriticalPods, "must not be greater than shutdownGracePeriod, of which it is a part"))
	case all > 0 && all < time.Second:
		errs = append(errs, field.Invalid(path("shutdownGracePeriod"), c.ShutdownGracePeriod, "must be 0s or at least 1s"))
	case critical > 0 && critical < time.Second:
		errs = append(errs, field.Invalid(path("shutdownGracePeriodCriticalPods"), c.ShutdownGracePeriodCriticalPods, "must be 0s or at least 1s"))
	case len(c.ShutdownGracePeriodByPodPriority) > 0 && all > 0:
		errs = append(errs, field.Forbidden(path("shutdownGracePeriodByPodPriority"), "cannot be combined with shutdownGracePeriod; leave one out"))
	}
	seen := map[int32]bool{}
	for i, p := range c.ShutdownGracePeriodByPodPriority {
		at := field.NewPath("shutdownGracePeriodByPodPriority").Index(i)
		if seen[p.Priority] {
			errs = append(errs, field.Duplicate(at.Child("priority"), p.Priority))
		}
		seen[p.Priority] = true
		if p.ShutdownGracePeriodSeconds < 0 {
			errs = append(errs, field.Invalid(at.Child("shutdownGracePeriodSeconds"), p.ShutdownGracePeriodSeconds, "must not be negative"))
		}
	}
	return errs
}

// validateImages checks what concerns pulling and removing images.
func (c *Agent) validateImages() field.ErrorList {
	errs := requireOneOf("imagePullCredentialsVerificationPolicy", c.ImagePullCredentialsVerificationPolicy,
		"NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify")
	if list := c.PreloadedImagesVerificationAllowlist; len(list) > 0 && c.ImagePullCredentialsVerificationPolicy != "NeverVerifyAllowlistedImages" {
		errs = append(errs, field.Forbidden(path("preloadedImagesVerificationAllowlist"), "is for the policy NeverVerifyAllowlistedImages only"))
	}
	for i, pattern := range c.PreloadedImagesVerificationAllowlist {
		if base := strings.TrimSuffix(pattern, "/*"); base == "" || strings.ContainsAny(base, "* ") {
			errs = append(errs, field.Invalid(field.NewPath("preloadedImagesVerificationAllowlist").Index(i), pattern, "must be a repository such as registry.example.com/app, or a beginning such as registry.example.com/*"))
		}
	}
	for name, value := range map[string]int{"maxParallelImagePulls": c.MaxParallelImagePulls, "registryPullQPS": c.RegistryPullQPS, "registryBurst": c.RegistryBurst} {
		errs = append(errs, requireAtLeast(name, value, 0)...)
	}
	switch file, dir := c.ImageCredentialProviderConfig, c.ImageCredentialProviderBinDir; {
	case file == "" && dir != "":
		errs = append(errs, field.Required(path("imageCredentialProviderConfig"), "imageCredentialProviderBinDir is of no use without it"))
	case file != "":
		errs = append(errs, requirePath("imageCredentialProviderConfig", file)...)
		errs = append(errs, requirePath("imageCredentialProviderBinDir", dir)...)
	}
	high, low := c.ImageGCHighThresholdPercent, c.ImageGCLowThresholdPercent
	for name, value := range map[string]int{"imageGCHighThresholdPercent": high, "imageGCLowThresholdPercent": low} {
		if value < 0 || value > 100 {
			errs = append(errs, field.Invalid(path(name), value, "must be from 0 to 100"))
		}
	}
	if low >= high {
		errs = append(errs, field.Invalid(path("imageGCLowThresholdPercent"), low, "must be less than imageGCHighThresholdPercent"))
	}
	minimum, more := parseDuration("imageMinimumGCAge", c.ImageMinimumGCAge)
	errs = append(errs, more...)
	maximum, more := parseDuration("imageMaximumGCAge", c.ImageMaximumGCAge)
	errs = append(errs, more...)
	if maximum > 0 && maximum <= minimum {
		errs = append(errs, field.Invalid(path("imageMaximumGCAge"), c.ImageMaximumGCAge, "must be 0s or greater than imageMinimumGCAge"))
	}
	return errs
}
