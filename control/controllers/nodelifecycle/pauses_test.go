package nodelifecycle

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestAPauseOfTheControlPlaneIsNobodysSilence(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	c := &Controller{signs: newSignsOfLife(), pulse: pulse{every: 3 * time.Second}, logger: slog.New(slog.DiscardHandler)}
	early, late := node("early", corev1.ConditionTrue), node("late", corev1.ConditionTrue)
	c.signs.condition(early, at(0))
	c.pulse.start(at(0))
	c.forgivePause(at(3))
	c.forgivePause(at(8)) // a crowded machine is no pause
	c.signs.condition(late, at(108))
	c.forgivePause(at(108)) // this is one of 100 s
	c.forgivePause(at(109))
	for _, want := range []struct {
		node *corev1.Node
		seen int
	}{{early, 100}, {late, 108}} {
		if got := c.signs.seen(want.node, at(109)); !got.Equal(at(want.seen)) {
			t.Errorf("node %s counts as seen at %s, want %d s", want.node.Name, got.Sub(start), want.seen)
		}
	}
}
