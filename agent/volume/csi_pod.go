package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// tokensAttribute is where a driver finds the tokens of the pod's service account.
const tokensAttribute = "csi.storage.k8s.io/serviceAccount.tokens"

// podAttributes are the volume's attributes and secrets with what the driver wants to
// know of the pod.
func (v *csiVolume) podAttributes(ctx context.Context) (attributes, secrets map[string]string, err error) {
	attributes, secrets = maps.Clone(v.attributes), maps.Clone(v.secrets)
	if v.object == nil {
		return attributes, secrets, nil
	}
	if attributes == nil {
		attributes = map[string]string{}
	}
	if ptr.Deref(v.object.Spec.PodInfoOnMount, false) {
		maps.Copy(attributes, map[string]string{
			"csi.storage.k8s.io/pod.name":            v.pod.Name,
			"csi.storage.k8s.io/pod.namespace":       v.pod.Namespace,
			"csi.storage.k8s.io/pod.uid":             string(v.pod.UID),
			"csi.storage.k8s.io/serviceAccount.name": v.pod.Spec.ServiceAccountName,
			"csi.storage.k8s.io/ephemeral":           strconv.FormatBool(v.mode == storagev1.VolumeLifecycleEphemeral),
		})
	}
	if len(v.object.Spec.TokenRequests) == 0 {
		return attributes, secrets, nil
	}
	tokens := map[string]authenticationv1.TokenRequestStatus{}
	for _, request := range v.object.Spec.TokenRequests {
		var expires time.Time
		var token string
		if token, expires, err = v.Tokens.Token(ctx, v.pod, request.Audience, request.ExpirationSeconds); err != nil {
			return nil, nil, fmt.Errorf("failed to get service account token attributes: %w", err)
		}
		tokens[request.Audience] = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	text, err := json.Marshal(tokens)
	if err != nil {
		return nil, nil, fmt.Errorf("encode service account tokens: %w", err)
	}
	if ptr.Deref(v.object.Spec.ServiceAccountTokenInSecrets, false) {
		if secrets == nil {
			secrets = map[string]string{}
		}
		secrets[tokensAttribute] = string(text)
	} else {
		attributes[tokensAttribute] = string(text)
	}
	return attributes, secrets, nil
}
