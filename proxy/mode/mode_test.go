package mode

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/ipvs"
)

func TestTheConfigurationKnowsEveryMode(t *testing.T) {
	if !slices.Equal(Names(), config.ProxyModes()) {
		t.Errorf("modes are %v, configuration takes %v", Names(), config.ProxyModes())
	}
}

func TestTheConfigurationKnowsEveryScheduler(t *testing.T) {
	if !slices.Equal(ipvs.Schedulers(), config.IPVSSchedulers()) {
		t.Errorf("schedulers are %v, configuration takes %v", ipvs.Schedulers(), config.IPVSSchedulers())
	}
}

func TestAutoIsTheFirstModeThatTheMachineHas(t *testing.T) {
	lacks := func(Options) (proxy.Backend, error) { return nil, errors.New("the kernel has no such thing") }
	has := func(Options) (proxy.Backend, error) { return nil, nil }
	list := []definition{{name: "best", open: lacks}, {name: "good", open: has}, {name: "old", open: has}}
	var log bytes.Buffer
	options := Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	chosen, err := choose(list, Auto, options)
	if err != nil || chosen.Name != "good" {
		t.Fatalf("chose %+v, %v", chosen, err)
	}
	if !strings.Contains(log.String(), "mode=good") || !strings.Contains(log.String(), "mode best: the kernel has no such thing") {
		t.Errorf("the log does not say what was chosen and why:\n%s", &log)
	}
	if chosen, err := choose(list, "old", options); err != nil || chosen.Name != "old" {
		t.Errorf("chose %+v, %v", chosen, err)
	}
	if _, err := choose(list, "best", options); err == nil || !strings.Contains(err.Error(), "the kernel has no such thing") {
		t.Errorf("a mode that the machine lacks: %v", err)
	}
	if _, err := choose(list, "other", options); err == nil {
		t.Error("a mode that does not exist was chosen")
	}
}

func TestRetireAsksAgainWhileConnectionsLiveOn(t *testing.T) {
	saved := modes
	defer func() { modes = saved }()
	lives, calls := true, []string{}
	record := func(name string, done func() bool) definition {
		return definition{name: name, retire: func(context.Context) (bool, error) {
			calls = append(calls, name)
			return done(), nil
		}}
	}
	modes = []definition{record("serving", func() bool { return true }), record("gone", func() bool { return true }), record("busy", func() bool { return !lives })}
	if done, err := Retire(t.Context(), "serving"); done || err != nil {
		t.Errorf("done %v, %v while connections live on", done, err)
	}
	lives = false
	if done, err := Retire(t.Context(), "serving"); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	if want := []string{"gone", "busy", "gone", "busy"}; !slices.Equal(calls, want) {
		t.Errorf("retired %v, want %v", calls, want)
	}
}
