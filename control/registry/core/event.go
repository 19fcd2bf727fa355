package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-run/skiff/control/registry"
)

// eventTTL is how long an event is kept, in seconds: an hour, as upstream.
const eventTTL = 3600

// eventKind serves Events, for this group and for events.k8s.io.
func eventKind() registry.Kind[*corev1.Event] {
	doc := corev1.Event{}.SwaggerDoc()
	return registry.Kind[*corev1.Event]{
		Version: corev1.SchemeGroupVersion, Plural: "events", Singular: "event", ShortNames: []string{"ev"}, TTL: eventTTL,
		New:                func() *corev1.Event { return &corev1.Event{} },
		NewList:            func() runtime.Object { return &corev1.EventList{} },
		CreateOnUpdate:     true,
		NoDependents:       true,
		Validate:           validateEvent,
		ValidateUpdate:     validateEventUpdate,
		ValidateUpdateOnly: true,
		Fields: func(e *corev1.Event) fields.Set {
			source := e.Source.Component
			if source == "" {
				source = e.ReportingController
			}
			return fields.Set{
				"involvedObject.kind": e.InvolvedObject.Kind, "involvedObject.namespace": e.InvolvedObject.Namespace,
				"involvedObject.name": e.InvolvedObject.Name, "involvedObject.uid": string(e.InvolvedObject.UID),
				"involvedObject.apiVersion": e.InvolvedObject.APIVersion, "involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
				"involvedObject.fieldPath": e.InvolvedObject.FieldPath, "reason": e.Reason, "reportingComponent": e.ReportingController,
				"source": source, "type": e.Type,
			}
		},
		Columns: []metav1.TableColumnDefinition{
			registry.Column("Last Seen", "string", doc["lastTimestamp"]),
			registry.Column("Type", "string", doc["type"]),
			registry.Column("Reason", "string", doc["reason"]),
			registry.Column("Object", "string", doc["involvedObject"]),
			registry.Wide(registry.Column("Subobject", "string", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"])),
			registry.Wide(registry.Column("Source", "string", doc["source"])),
			registry.Column("Message", "string", doc["message"]),
			registry.Wide(registry.Column("First Seen", "string", doc["firstTimestamp"])),
			registry.Wide(registry.Column("Count", "string", doc["count"])),
			registry.Wide(registry.NameColumn()),
		},
		Row: eventRow,
	}
}

func eventRow(e *corev1.Event) []any {
	first := registry.Age(e.FirstTimestamp)
	if e.FirstTimestamp.IsZero() {
		first = registry.Age(metav1.Time(e.EventTime))
	}
	last, count := registry.Age(e.LastTimestamp), int64(e.Count)
	switch {
	case e.Series != nil:
		last, count = registry.Age(metav1.Time(e.Series.LastObservedTime)), int64(e.Series.Count)
	case e.LastTimestamp.IsZero():
		last = first
	}
	if e.Series == nil && count == 0 {
		// An event that happened once has no count in events.k8s.io.
		count = 1
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, eventSource(e), strings.TrimSpace(e.Message), first, count, e.Name}
}

func eventSource(e *corev1.Event) string {
	component, host := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if host == "" {
		host = e.ReportingInstance
	}
	if host == "" {
		return component
	}
	return fmt.Sprintf("%s, %s", component, host)
}

func addEvents(deps *registry.Dependencies, storages registry.Storages) error {
	_, own, err := registry.Build(deps, eventKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	return nil
}
