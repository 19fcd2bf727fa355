package tainteviction

import (
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
)

// noExecute returns the node's taints that drive pods away.
func noExecute(node *corev1.Node) []corev1.Taint {
	if node == nil {
		return nil
	}
	var taints []corev1.Taint
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, taint)
		}
	}
	return taints
}

// deadline returns when the pod has to leave a node with these taints; false when
// it may stay. A taint that is not tolerated drives it away at once, one tolerated
// for some seconds that long after it was added, or after the pod came.
func deadline(pod *corev1.Pod, came time.Time, taints []corev1.Taint, since func(corev1.Taint) time.Time) (time.Time, bool) {
	earliest, due := time.Time{}, false
	for _, taint := range taints {
		tolerance, tolerated, limited := toleration(pod.Spec.Tolerations, &taint)
		if tolerated && !limited {
			continue
		}
		from := since(taint)
		if came.After(from) {
			from = came
		}
		if at := from.Add(tolerance); !due || at.Before(earliest) {
			earliest, due = at, true
		}
	}
	return earliest, due
}

// toleration returns for how long the first matching toleration bears the taint;
// not limited means for ever.
func toleration(tolerations []corev1.Toleration, taint *corev1.Taint) (length time.Duration, tolerated, limited bool) {
	for i := range tolerations {
		if !tolerations[i].ToleratesTaint(logr.Discard(), taint, true) {
			continue
		}
		if seconds := tolerations[i].TolerationSeconds; seconds != nil {
			return time.Duration(max(*seconds, 0)) * time.Second, true, true
		}
		return 0, true, false
	}
	return 0, false, true
}
