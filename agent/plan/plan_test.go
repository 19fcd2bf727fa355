package plan

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type probes map[string]Result

func (p probes) Liveness(id string) Result { return p["live:"+id] }
func (p probes) Startup(id string) Result  { return p["start:"+id] }

func pod(policy v1.RestartPolicy, names ...string) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{RestartPolicy: policy}}
	p.Name, p.Namespace, p.UID = "p", "ns", "u"
	for _, n := range names {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: n, Image: "i"})
	}
	return p
}

func withInit(p *v1.Pod, containers ...v1.Container) *v1.Pod {
	p.Spec.InitContainers = containers
	return p
}

func initContainer(name string) v1.Container { return v1.Container{Name: name, Image: "i"} }

func sidecar(name string) v1.Container {
	always := v1.ContainerRestartPolicyAlways
	return v1.Container{Name: name, Image: "i", RestartPolicy: &always}
}

// state has one ready sandbox and the containers.
func state(containers ...podstate.Container) *podstate.Pod {
	return &podstate.Pod{Sandboxes: []podstate.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}}, Containers: containers}
}

func container(name string, s podstate.State, change ...func(*podstate.Container)) podstate.Container {
	c := podstate.Container{ID: name + "-id", Name: name, SandboxID: "s", State: s, StartedAt: now.Add(-time.Minute)}
	c.Record.Hash = podstate.Hash(&v1.Container{Name: name, Image: "i"})
	for _, f := range change {
		f(&c)
	}
	return c
}

func exited(code int32, ago time.Duration) func(*podstate.Container) {
	return func(c *podstate.Container) { c.ExitCode, c.FinishedAt = code, now.Add(-ago) }
}

func backoff(d time.Duration, attempt int) func(*podstate.Container) {
	return func(c *podstate.Container) { c.Record.Backoff, c.Record.Attempt = d, attempt }
}

// want is what a plan must be, in short.
type want struct {
	sandbox, stop, finished bool
	start, kill, waiting    []string
	wake                    time.Duration
	attempt                 int
}

func TestCompute(t *testing.T) {
	t.Parallel()
	always, never, onFailure := v1.RestartPolicyAlways, v1.RestartPolicyNever, v1.RestartPolicyOnFailure
	dead := func(containers ...podstate.Container) *podstate.Pod {
		s := state(containers...)
		s.Sandboxes[0].Ready = false
		return s
	}
	for name, test := range map[string]struct {
		pod    *v1.Pod
		state  *podstate.Pod
		probes probes
		failed map[string]Failed
		want   want
	}{
		"a new pod gets a sandbox first":                           {pod: pod(always, "a"), state: &podstate.Pod{}, want: want{sandbox: true}},
		"in a sandbox all containers start":                        {pod: pod(always, "a", "b"), state: state(), want: want{start: []string{"a", "b"}}},
		"running containers are left alone":                        {pod: pod(always, "a"), state: state(container("a", podstate.Running))},
		"a sandbox without address is replaced":                    {pod: pod(always, "a"), state: &podstate.Pod{Sandboxes: []podstate.Sandbox{{ID: "s", Ready: true}}}, want: want{sandbox: true, stop: true}},
		"after a reboot a pod that restarts gets a new sandbox":    {pod: pod(always, "a"), state: dead(container("a", podstate.Exited, exited(137, 0))), want: want{sandbox: true}},
		"after a reboot a pod that never restarts is over":         {pod: pod(never, "a"), state: dead(container("a", podstate.Exited, exited(137, 0))), want: want{finished: true}},
		"after a reboot succeeded containers of a job are over":    {pod: pod(onFailure, "a"), state: dead(container("a", podstate.Exited, exited(0, 0))), want: want{finished: true}},
		"the first restart is immediate":                           {pod: pod(always, "a"), state: state(container("a", podstate.Exited, exited(1, 0))), want: want{start: []string{"a"}, attempt: 1}},
		"the second restart waits ten seconds":                     {pod: pod(always, "a"), state: state(container("a", podstate.Exited, exited(1, 4*time.Second), backoff(10*time.Second, 1))), want: want{waiting: []string{"a"}, wake: 6 * time.Second}},
		"and then comes":                                           {pod: pod(always, "a"), state: state(container("a", podstate.Exited, exited(1, 10*time.Second), backoff(10*time.Second, 1))), want: want{start: []string{"a"}, attempt: 2}},
		"ten minutes of running reset the back-off":                {pod: pod(always, "a"), state: state(container("a", podstate.Exited, exited(1, 0), backoff(5*time.Minute, 9), func(c *podstate.Container) { c.StartedAt = now.Add(-11 * time.Minute) })), want: want{start: []string{"a"}, attempt: 10}},
		"a new image resets the back-off":                          {pod: pod(always, "a"), state: state(container("a", podstate.Exited, exited(1, 0), backoff(5*time.Minute, 9), func(c *podstate.Container) { c.Record.Hash = "old" })), want: want{start: []string{"a"}, attempt: 10}},
		"a changed image restarts the container whatever policy":   {pod: pod(never, "a"), state: state(container("a", podstate.Running, func(c *podstate.Container) { c.Record.Hash = "old" })), want: want{kill: []string{"Container a definition changed, will be restarted"}}},
		"success of a job is not repeated":                         {pod: pod(onFailure, "a"), state: state(container("a", podstate.Exited, exited(0, 0))), want: want{finished: true, stop: true}},
		"failure of a job is repeated":                             {pod: pod(onFailure, "a"), state: state(container("a", podstate.Exited, exited(2, 0))), want: want{start: []string{"a"}, attempt: 1}},
		"never means never":                                        {pod: pod(never, "a"), state: state(container("a", podstate.Exited, exited(2, 0))), want: want{finished: true, stop: true}},
		"one running container keeps the pod":                      {pod: pod(never, "a", "b"), state: state(container("a", podstate.Exited, exited(2, 0)), container("b", podstate.Running))},
		"a container that was created and not started is replaced": {pod: pod(always, "a"), state: state(container("a", podstate.Created, backoff(0, 3))), want: want{start: []string{"a"}, attempt: 3}},
		"a container in unknown state is killed first":             {pod: pod(always, "a"), state: state(container("a", podstate.Unknown)), want: want{kill: []string{`Container is in "unknown" state, try killing it before restart`}}},
		"a failed liveness probe kills":                            {pod: pod(always, "a"), state: state(container("a", podstate.Running)), probes: probes{"live:a-id": Failure}, want: want{kill: []string{"Container a failed liveness probe, will be restarted"}}},
		"and says so without promise when it never restarts":       {pod: pod(never, "a"), state: state(container("a", podstate.Running)), probes: probes{"live:a-id": Failure}, want: want{kill: []string{"Container a failed liveness probe"}}},
		"a failed startup probe kills":                             {pod: pod(always, "a"), state: state(container("a", podstate.Running)), probes: probes{"start:a-id": Failure}, want: want{kill: []string{"Container a failed startup probe, will be restarted"}}},
		"a failed attempt waits with its reason":                   {pod: pod(always, "a"), state: state(), failed: map[string]Failed{"a": {Reason: "ErrImagePull", RetryAt: now.Add(time.Second)}}, want: want{waiting: []string{"a"}, wake: time.Second}},
		"missing volumes hold everything back":                     {pod: pod(always, "a"), state: state(), failed: map[string]Failed{SandboxKey: {RetryAt: now.Add(time.Second)}}, want: want{wake: time.Second}},

		"the first init container comes alone":                    {pod: withInit(pod(always, "a"), initContainer("i1"), initContainer("i2")), state: state(), want: want{start: []string{"i1"}}},
		"a running init container holds the others":               {pod: withInit(pod(always, "a"), initContainer("i1"), initContainer("i2")), state: state(container("i1", podstate.Running))},
		"a finished init container lets the next start":           {pod: withInit(pod(always, "a"), initContainer("i1"), initContainer("i2")), state: state(container("i1", podstate.Exited, exited(0, 0))), want: want{start: []string{"i2"}}},
		"the last init container lets the containers start":       {pod: withInit(pod(always, "a"), initContainer("i1")), state: state(container("i1", podstate.Exited, exited(0, 0))), want: want{start: []string{"a"}}},
		"removed init containers are not run again":               {pod: withInit(pod(always, "a"), initContainer("i1"), initContainer("i2")), state: state(container("i2", podstate.Exited, exited(0, 0))), want: want{start: []string{"a"}}},
		"init containers of an initialized pod do not matter":     {pod: withInit(pod(always, "a"), initContainer("i1")), state: state(container("a", podstate.Running))},
		"a failed init container is tried again":                  {pod: withInit(pod(always, "a"), initContainer("i1")), state: state(container("i1", podstate.Exited, exited(1, 0))), want: want{start: []string{"i1"}, attempt: 1}},
		"a failed init container ends a pod that never restarts":  {pod: withInit(pod(never, "a"), initContainer("i1")), state: state(container("i1", podstate.Exited, exited(1, 0))), want: want{finished: true, stop: true}},
		"a new sandbox runs init containers again":                {pod: withInit(pod(always, "a"), initContainer("i1")), state: state(container("i1", podstate.Exited, exited(0, 0), func(c *podstate.Container) { c.SandboxID = "old" })), want: want{start: []string{"i1"}, attempt: 1}},
		"a sidecar that runs lets the next start":                 {pod: withInit(pod(always, "a"), sidecar("s1"), initContainer("i1")), state: state(container("s1", podstate.Running)), want: want{start: []string{"i1"}}},
		"a sidecar must pass its startup probe first":             {pod: withInit(pod(always, "a"), func() v1.Container { c := sidecar("s1"); c.StartupProbe = &v1.Probe{}; return c }()), state: state(container("s1", podstate.Running))},
		"and then lets the containers start":                      {pod: withInit(pod(always, "a"), func() v1.Container { c := sidecar("s1"); c.StartupProbe = &v1.Probe{}; return c }()), state: state(container("s1", podstate.Running)), probes: probes{"start:s1-id": Success}, want: want{start: []string{"a"}}},
		"a sidecar that ended is restarted beside the containers": {pod: withInit(pod(never, "a"), sidecar("s1")), state: state(container("s1", podstate.Exited, exited(0, 0)), container("a", podstate.Running)), want: want{start: []string{"s1"}, attempt: 1}},
		"a sidecar does not keep a finished pod alive":            {pod: withInit(pod(never, "a"), sidecar("s1")), state: state(container("s1", podstate.Running), container("a", podstate.Exited, exited(0, 0))), want: want{finished: true, stop: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.probes == nil {
				test.probes = probes{}
			}
			p := Compute(Input{Pod: test.pod, State: test.state, Probes: test.probes, Failed: test.failed, Now: now})
			got := want{sandbox: p.CreateSandbox, stop: p.StopPod, finished: p.Finished}
			for _, s := range p.Start {
				got.start = append(got.start, s.Container.Name)
				got.attempt = s.Attempt
			}
			for _, k := range p.Kill {
				got.kill = append(got.kill, k.Message)
			}
			for n := range p.Waiting {
				got.waiting = append(got.waiting, n)
			}
			if !p.WakeAt.IsZero() {
				got.wake = p.WakeAt.Sub(now)
			}
			w := test.want
			if got.sandbox != w.sandbox || got.stop != w.stop || got.finished != w.finished || got.wake != w.wake || got.attempt != w.attempt ||
				!slices.Equal(got.start, w.start) || !slices.Equal(got.kill, w.kill) || !slices.Equal(got.waiting, w.waiting) {
				t.Errorf("got  %+v\nwant %+v", got, w)
			}
		})
	}
}

func TestTheBackoffDoublesUpToFiveMinutes(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for d := time.Duration(0); len(got) < 7; {
		d = nextDelay(d)
		got = append(got, d)
	}
	s := time.Second
	if want := []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s, 300 * s}; !slices.Equal(got, want) {
		t.Errorf("delays %v, want %v", got, want)
	}
}

func TestContainerRestartRulesComeBeforeThePolicy(t *testing.T) {
	t.Parallel()
	never := v1.ContainerRestartPolicyNever
	c := &v1.Container{RestartPolicy: &never, RestartPolicyRules: []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestart, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}}
	spec := &v1.PodSpec{RestartPolicy: v1.RestartPolicyAlways}
	if !RestartsAfter(spec, c, 42) || RestartsAfter(spec, c, 1) {
		t.Error("only exit code 42 restarts the container")
	}
}

func TestARuleRestartsAllContainers(t *testing.T) {
	t.Parallel()
	never := v1.ContainerRestartPolicyNever
	p := withInit(pod(v1.RestartPolicyNever, "a", "b"), initContainer("i"))
	p.Spec.Containers[0].RestartPolicy = &never
	p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{88}},
	}}
	exited := func(name string, code int32) podstate.Container {
		return podstate.Container{ID: name + "1", Name: name, SandboxID: "s", State: podstate.Exited, ExitCode: code}
	}
	b := podstate.Container{ID: "b1", Name: "b", SandboxID: "s", State: podstate.Running}
	got := Compute(Input{Pod: p, State: state(exited("a", 88), b, exited("i", 0)), Probes: probes{}, Now: now})
	want := []Reset{{"b1", "b", true}, {"i1", "i", false}, {"a1", "a", false}}
	if !slices.Equal(got.Reset, want) || len(got.Start)+len(got.Kill) > 0 || got.Finished {
		t.Errorf("plan %+v, want reset %+v", got, want)
	}
	if got := Compute(Input{Pod: p, State: state(exited("a", 1), b, exited("i", 0)), Probes: probes{}, Now: now}); len(got.Reset) > 0 || len(got.Start) > 0 {
		t.Errorf("plan of another exit code %+v", got)
	}
}
