package agent

import (
	"errors"
	"sync/atomic"

	"github.com/skiff-run/skiff/agent/eviction"
	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/agent/shutdown"
	"github.com/skiff-run/skiff/internal/config"
)

// Reloadable are the settings that Reload applies, by their names in the
// configuration file. It does not know logLevel, which is the daemon's.
func Reloadable() []string {
	return []string{
		"allowedUnsafeSysctls", "clusterDNS", "clusterDomain",
		"evictionHard", "evictionSoft", "evictionSoftGracePeriod", "evictionMinimumReclaim", "evictionPressureTransitionPeriod", "evictionMaxPodGracePeriod", "mergeDefaultEvictionSettings",
		"imageGCHighThresholdPercent", "imageGCLowThresholdPercent", "imageMinimumGCAge", "imageMaximumGCAge",
		"maxPods", "shutdownGracePeriod", "shutdownGracePeriodCriticalPods", "shutdownGracePeriodByPodPriority",
	}
}

// changing are the parts of an agent that runs whose settings can change.
type changing struct {
	resolver  *atomic.Pointer[hostfiles.Resolver]
	evictor   *eviction.Manager
	collector *image.Collector
	ending    *shutdown.Manager
	nodes     *node.Manager
}

// Reload has an agent that runs follow settings that differ from its own in what
// Reloadable lists. After an error nothing has changed. Pods that run keep what
// they were started with.
func (a *Agent) Reload(s *config.Agent) error {
	parts := a.changing.Load()
	if parts == nil {
		return errors.New("the agent is not running yet")
	}
	resolver, err := newResolver(s)
	if err != nil {
		return err
	}
	limits, err := evictionLimits(&s.Resources)
	if err != nil {
		return err
	}
	capacity, _ := a.facts.Amounts()
	reserved, err := resources.NewReservations(&s.Resources, capacity)
	if err != nil {
		return err
	}
	a.live.Store(s)
	parts.resolver.Store(resolver)
	parts.evictor.SetLimits(limits)
	parts.collector.SetPolicy(imagePolicy(s))
	parts.ending.SetPriorities(s.ShutdownPriorities())
	a.facts.Offer(s.MaxPods, reserved.Allocatable)
	parts.nodes.Wake()
	return nil
}
