package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what probes and lifecycle hooks have in common: one action to perform.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

// lifecycleAndProbes checks what containers have that live as long as the pod.
func (v *validator) lifecycleAndProbes(c *corev1.Container, path *field.Path) {
	if hooks := c.Lifecycle; hooks != nil {
		v.hook(hooks.PostStart, path.Child("lifecycle", "postStart"))
		v.hook(hooks.PreStop, path.Child("lifecycle", "preStop"))
		v.stopSignal(hooks.StopSignal, path.Child("lifecycle", "stopSignal"))
	}
	v.probe(c.LivenessProbe, path.Child("livenessProbe"))
	v.succeedsOnce(c.LivenessProbe, path.Child("livenessProbe"))
	v.probe(c.ReadinessProbe, path.Child("readinessProbe"))
	if p := c.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		v.invalid(path.Child("readinessProbe", "terminationGracePeriodSeconds"), p.TerminationGracePeriodSeconds,
			"must not be set for readinessProbes")
	}
	v.probe(c.StartupProbe, path.Child("startupProbe"))
	v.succeedsOnce(c.StartupProbe, path.Child("startupProbe"))
}

// noLifecycleOrProbes is the rule for init containers that run to their end.
func (v *validator) noLifecycleOrProbes(c *corev1.Container, path *field.Path) {
	for _, part := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", c.Lifecycle != nil},
		{"livenessProbe", c.LivenessProbe != nil},
		{"readinessProbe", c.ReadinessProbe != nil},
		{"startupProbe", c.StartupProbe != nil},
	} {
		if part.set {
			v.forbidden(path.Child(part.name), "may not be set for init containers without restartPolicy=Always")
		}
	}
}

func (v *validator) hook(h *corev1.LifecycleHandler, path *field.Path) {
	if h != nil {
		v.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path)
	}
}

func (v *validator) probe(p *corev1.Probe, path *field.Path) {
	if p == nil {
		return
	}
	v.handler(handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	v.nonNegative(int64(p.InitialDelaySeconds), path.Child("initialDelaySeconds"))
	v.nonNegative(int64(p.TimeoutSeconds), path.Child("timeoutSeconds"))
	v.nonNegative(int64(p.PeriodSeconds), path.Child("periodSeconds"))
	v.nonNegative(int64(p.SuccessThreshold), path.Child("successThreshold"))
	v.nonNegative(int64(p.FailureThreshold), path.Child("failureThreshold"))
	if grace := p.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		v.invalid(path.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0")
	}
}

// succeedsOnce: a probe that decides about life and start has nothing to count successes for.
func (v *validator) succeedsOnce(p *corev1.Probe, path *field.Path) {
	if p != nil && p.SuccessThreshold != 1 {
		v.invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
}

func (v *validator) handler(h handler, path *field.Path) {
	found := 0
	only := func(set bool, name string, check func(*field.Path)) {
		if !set {
			return
		}
		if found++; found > 1 {
			v.forbidden(path.Child(name), "may not specify more than 1 handler type")
			return
		}
		check(path.Child(name))
	}
	only(h.exec != nil, "exec", func(at *field.Path) {
		if len(h.exec.Command) == 0 {
			v.required(at.Child("command"), "")
		}
	})
	only(h.http != nil, "httpGet", func(at *field.Path) { v.httpGet(h.http, at) })
	only(h.tcp != nil, "tcpSocket", func(at *field.Path) { v.port(h.tcp.Port, at.Child("port")) })
	only(h.grpc != nil, "grpc", func(at *field.Path) {
		v.invalidEach(at.Child("port"), int(h.grpc.Port), validation.IsValidPortNum(int(h.grpc.Port)))
	})
	only(h.sleep != nil, "sleep", func(at *field.Path) { v.sleep(h.sleep, at) })
	if found == 0 {
		v.required(path, "must specify a handler type")
	}
}

func (v *validator) httpGet(action *corev1.HTTPGetAction, path *field.Path) {
	if action.Path == "" {
		v.required(path.Child("path"), "")
	}
	v.port(action.Port, path.Child("port"))
	oneOf(&v.findings, path.Child("scheme"), action.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, header := range action.HTTPHeaders {
		v.invalidEach(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
	}
}

// sleep must end before the pod is killed. A pod without a grace period has been told so already.
func (v *validator) sleep(action *corev1.SleepAction, path *field.Path) {
	grace := v.spec.TerminationGracePeriodSeconds
	if grace != nil && (action.Seconds < 0 || action.Seconds > *grace) {
		v.invalid(path, action.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
	}
}
