package deployment

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rollbackRevision returns the revision that the deprecated rollback annotation
// asks for, zero meaning the last one. (kubectl rollout undo does not use it; it
// patches the template.)
func rollbackRevision(d *appsv1.Deployment) (int64, bool) {
	revision, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedRollbackTo], 10, 64)
	return revision, err == nil
}

// rollback gives the Deployment the template of a former revision; whatever comes
// of it, it is asked for no longer.
func (r *rollout) rollback(ctx context.Context, to int64) error {
	if err := r.syncNewSet(ctx, true); err != nil {
		return err
	}
	reason, message := "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to."
	eventType := corev1.EventTypeWarning
	if to == 0 {
		if to = lastRevision(r.all()); to == 0 {
			message = "Unable to find last revision."
		}
	}
	for _, set := range r.all() {
		if number, ok := revision(set); !ok || number != to || to == 0 {
			continue
		}
		if sameTemplate(&set.Spec.Template, &r.d.Spec.Template) {
			reason = "DeploymentRollbackTemplateUnchanged"
			message = fmt.Sprintf("The rollback revision contains the same template as current deployment %q", r.d.Name)
			break
		}
		restore(r.d, set)
		reason, eventType = "DeploymentRollback", corev1.EventTypeNormal
		message = fmt.Sprintf("Rolled back deployment %q to revision %d", r.d.Name, to)
		break
	}
	delete(r.d.Annotations, appsv1.DeprecatedRollbackTo)
	if _, err := r.client.AppsV1().Deployments(r.d.Namespace).Update(ctx, r.d, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update deployment: %w", err)
	}
	r.events.Event(r.observed, eventType, reason, message)
	return nil
}

// restore copies the set's template, and the annotations it had then, into the
// Deployment.
func restore(d *appsv1.Deployment, set *appsv1.ReplicaSet) {
	d.Spec.Template = *withoutHash(set.Spec.Template.DeepCopy())
	maps.DeleteFunc(d.Annotations, func(name, _ string) bool { return !ownAnnotation(name) })
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	for name, value := range set.Annotations {
		if !ownAnnotation(name) {
			d.Annotations[name] = value
		}
	}
}
