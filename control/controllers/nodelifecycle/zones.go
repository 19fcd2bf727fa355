package nodelifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/node/topology"

	"golang.org/x/time/rate"
)

// excludeLabel keeps a node out of the judgement of its zone.
const excludeLabel = "node.kubernetes.io/exclude-disruption"

// tally counts the nodes of a zone.
type tally struct {
	ready, lost int
}

// count returns the zones' tallies.
func count(nodes []*corev1.Node) map[string]tally {
	zones := map[string]tally{}
	for _, node := range nodes {
		if _, excluded := node.Labels[excludeLabel]; excluded {
			continue
		}
		key := topology.GetZoneKey(node)
		zone := zones[key]
		if status(node, corev1.NodeReady) == corev1.ConditionTrue {
			zone.ready++
		} else {
			zone.lost++
		}
		zones[key] = zone
	}
	return zones
}

// everythingLost tells whether no zone has a ready node.
func everythingLost(zones map[string]tally) bool {
	for _, zone := range zones {
		if zone.ready > 0 {
			return false
		}
	}
	return len(zones) > 0
}

// pace returns how many of the zone's nodes per second may be tainted.
func (o Options) pace(zone tally) float64 {
	all := zone.ready + zone.lost
	// A zone that is lost completely, while others are not, is believed.
	if zone.ready == 0 || zone.lost <= 2 || float64(zone.lost)/float64(all) < o.UnhealthyZone {
		return o.EvictionRate
	}
	if all > o.LargeZone {
		return o.ReducedRate
	}
	return 0
}

// watchDisruption notices when the last ready node is lost, and when the first one
// is back.
func (c *Controller) watchDisruption(now time.Time) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	lost := everythingLost(count(nodes))
	switch {
	case lost && !c.allLost:
		c.logger.Warn("all nodes are lost; no pods are driven away")
	case !lost && c.allLost:
		c.logger.Info("a node is ready again; the others get time to report")
		c.holdUntil = now.Add(c.options.MonitorGrace)
	}
	if lost != c.allLost {
		c.allLost = lost
		for _, node := range nodes {
			c.queue.Add(node.Name)
		}
	}
}

// mayDrive returns zero if the node's pods may be driven away now, else after which
// time to ask again; negative when a change elsewhere has to come first.
func (c *Controller) mayDrive(node *corev1.Node, now time.Time) time.Duration {
	if c.allLost {
		return -1
	}
	if left := c.holdUntil.Sub(now); left > 0 {
		return left
	}
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return time.Second
	}
	key := topology.GetZoneKey(node)
	pace := rate.Limit(c.options.pace(count(nodes)[key]))
	if pace == 0 {
		return -1
	}
	limiter := c.limits[key]
	if limiter == nil {
		limiter = rate.NewLimiter(pace, 1)
		c.limits[key] = limiter
	}
	limiter.SetLimitAt(now, pace)
	reservation := limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return wait
	}
	return 0
}

// wakeUnready looks again at all nodes that are not ready, since what may be done
// about one depends on the others.
func (c *Controller) wakeUnready(but string) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, node := range nodes {
		if node.Name != but && status(node, corev1.NodeReady) != corev1.ConditionTrue {
			c.queue.Add(node.Name)
		}
	}
}
