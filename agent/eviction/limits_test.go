package eviction

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/internal/config"
)

type steady struct{}

func (steady) Observe(context.Context) (Observations, error)         { return left(300), nil }
func (steady) DedicatedImageFs(context.Context) (bool, error)        { return false, nil }
func (steady) Pods() []*v1.Pod                                       { return nil }
func (steady) Evict(types.UID, podstatus.Verdict, int64)             {}
func (steady) Eventf(runtime.Object, string, string, string, ...any) {}
func (steady) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {
}

func TestNewLimitsHoldAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int32
		m := NewManager(Config{
			Limits: Limits{Thresholds: []config.Threshold{threshold(100, 0, 0)}, Transition: time.Second}, Machine: steady{}, Pods: steady{}, Events: steady{},
			Usage: func(context.Context) map[string]*stats.PodStats { return nil }, Changed: func() { told.Add(1) }, Now: time.Now, Every: time.Hour,
			Logger: slog.New(slog.DiscardHandler), FreeDisk: func(context.Context) error { return nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); m.Run(ctx) }()
		synctest.Wait()
		if c := m.Conditions(); len(c) > 0 {
			t.Errorf("with enough memory: %v", c)
		}
		m.SetLimits(Limits{Thresholds: []config.Threshold{threshold(400, 0, 0)}, Transition: time.Second})
		synctest.Wait()
		if c := m.Conditions(); len(c) != 1 || c[0] != v1.NodeMemoryPressure {
			t.Errorf("below the new threshold: %v", c)
		}
		time.Sleep(2 * time.Second)
		m.SetLimits(Limits{Thresholds: []config.Threshold{threshold(200, 0, 0)}, Transition: time.Second})
		synctest.Wait()
		if c := m.Conditions(); len(c) > 0 || told.Load() != 2 {
			t.Errorf("above the next threshold: %v, told %d times", c, told.Load())
		}
		cancel()
		<-ended
	})
}
