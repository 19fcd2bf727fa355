package cgroup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// fakeSystemd keeps units in memory.
type fakeSystemd struct {
	units map[string]map[string]any
	calls []string
	// result is how jobs end.
	result string
	closed bool
}

func (f *fakeSystemd) keep(name string, properties []systemddbus.Property) {
	for _, p := range properties {
		f.units[name][p.Name] = p.Value.Value()
	}
}

func (f *fakeSystemd) StartTransientUnitContext(_ context.Context, name, mode string, properties []systemddbus.Property, done chan<- string) (int, error) {
	f.calls = append(f.calls, "start "+name+" "+mode)
	if f.units[name] != nil {
		return 0, dbus.Error{Name: "org.freedesktop.systemd1.UnitExists"}
	}
	f.units[name] = map[string]any{}
	f.keep(name, properties)
	done <- f.result
	return 1, nil
}

func (f *fakeSystemd) SetUnitPropertiesContext(_ context.Context, name string, runtime bool, properties ...systemddbus.Property) error {
	f.calls = append(f.calls, fmt.Sprintf("set %s %v", name, runtime))
	f.keep(name, properties)
	return nil
}

func (f *fakeSystemd) StopUnitContext(_ context.Context, name, _ string, done chan<- string) (int, error) {
	f.calls = append(f.calls, "stop "+name)
	if f.units[name] == nil {
		return 0, dbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit"}
	}
	delete(f.units, name)
	done <- f.result
	return 1, nil
}

func (f *fakeSystemd) ResetFailedUnitContext(context.Context, string) error { return nil }
func (f *fakeSystemd) Connected() bool                                      { return !f.closed }
func (f *fakeSystemd) Close()                                               { f.closed = true }

func withFake(unified bool) (*systemd, *fakeSystemd, *int) {
	fake, dialed := &fakeSystemd{units: map[string]map[string]any{}, result: "done"}, 0
	s := &systemd{unified: unified, dial: func(context.Context) (units, error) {
		dialed++
		fake.closed = false
		return fake, nil
	}}
	return s, fake, &dialed
}

func TestSlicesAreStartedOnceAndThenChanged(t *testing.T) {
	t.Parallel()
	const slice = "kubepods-podu.slice"
	const infinity = ^uint64(0)
	for name, c := range map[string]struct {
		unified     bool
		first, then map[string]any
	}{
		"cgroup v2": {true,
			map[string]any{"CPUWeight": Weight(512), "CPUQuotaPerSecUSec": uint64(510000), "MemoryMax": uint64(64 << 20), "TasksMax": uint64(9), "DefaultDependencies": false},
			map[string]any{"CPUWeight": Weight(512), "CPUQuotaPerSecUSec": infinity, "MemoryMax": infinity, "TasksMax": infinity}},
		"cgroup v1": {false,
			map[string]any{"CPUShares": uint64(512), "CPUQuotaPerSecUSec": uint64(510000), "MemoryLimit": uint64(64 << 20), "TasksMax": uint64(9)},
			map[string]any{"MemoryLimit": infinity, "TasksMax": infinity}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			s, fake, _ := withFake(c.unified)
			check := func(want map[string]any) {
				t.Helper()
				for property, value := range want {
					if got := fake.units[slice][property]; got != value {
						t.Errorf("%s is %v, want %v", property, got, value)
					}
				}
			}
			// systemd keeps whole percents of a processor: half a percent more than asked, never less.
			if err := s.set(ctx, slice, Resources{CPUShares: 512, CPUQuota: 50500, MemoryLimit: 64 << 20, PidsLimit: 9}); err != nil {
				t.Fatal(err)
			}
			check(c.first)
			if err := s.set(ctx, slice, Resources{CPUQuota: -1, MemoryLimit: -1, PidsLimit: -1}); err != nil {
				t.Fatal(err)
			}
			check(c.then)
			for range 2 {
				if err := s.remove(ctx, slice); err != nil {
					t.Error(err)
				}
			}
			want := []string{"start " + slice + " replace", "start " + slice + " replace", "set " + slice + " true", "stop " + slice, "stop " + slice}
			if !slices.Equal(fake.calls, want) {
				t.Errorf("calls %q, want %q", fake.calls, want)
			}
		})
	}
}

func TestWhatSystemdSaysIsHeard(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, fake, dialed := withFake(true)
	fake.result = "failed"
	if err := s.set(ctx, "kubepods.slice", Resources{}); err == nil || !strings.Contains(err.Error(), `systemd's job for kubepods.slice ended as "failed"`) {
		t.Errorf("error %v", err)
	}
	fake.result = "done"
	// systemd was restarted: the connection is made anew.
	fake.closed = true
	if err := s.set(ctx, "kubepods-burstable.slice", Resources{CPUShares: 2}); err != nil || *dialed != 2 {
		t.Errorf("connected %d times: %v", *dialed, err)
	}
	s.close()
	if !fake.closed {
		t.Error("the connection stays open")
	}
}
