package core

import (
	"context"
	"crypto/tls"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
)

// secretKind serves Secrets.
func secretKind() registry.Kind[*corev1.Secret] {
	return registry.Kind[*corev1.Secret]{
		Version: corev1.SchemeGroupVersion, Plural: "secrets", Singular: "secret",
		New:          func() *corev1.Secret { return &corev1.Secret{} },
		NewList:      func() runtime.Object { return &corev1.SecretList{} },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Default: func(s *corev1.Secret) {
			// What is written as text is kept as bytes.
			for key, value := range s.StringData {
				if s.Data == nil {
					s.Data = map[string][]byte{}
				}
				s.Data[key] = []byte(value)
			}
			s.StringData = nil
			if s.Type == "" {
				s.Type = corev1.SecretTypeOpaque
			}
		},
		PrepareForUpdate: func(_ context.Context, s, old *corev1.Secret) {
			// A client that does not know the type means the one it has.
			if s.Type == "" {
				s.Type = old.Type
			}
		},
		Validate:       func(_ context.Context, s *corev1.Secret) field.ErrorList { return validateSecret(s) },
		ValidateUpdate: func(_ context.Context, s, old *corev1.Secret) field.ErrorList { return validateSecretUpdate(s, old) },
		Warnings:       func(_ context.Context, s, _ *corev1.Secret) []string { return secretWarnings(s) },
		Fields:         func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Type", "string", corev1.Secret{}.SwaggerDoc()["type"]),
			registry.Column("Data", "string", corev1.Secret{}.SwaggerDoc()["data"]),
			registry.AgeColumn(),
		},
		Row: func(s *corev1.Secret) []any {
			return []any{s.Name, string(s.Type), int64(len(s.Data)), registry.Age(s.CreationTimestamp)}
		},
	}
}

func validateSecret(s *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	data := field.NewPath("data")
	size := 0
	for key, value := range s.Data {
		for _, message := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(data.Key(key), key, message))
		}
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "" /* not echoed */, corev1.MaxSecretSize))
	}
	required := func(keys ...string) {
		for _, key := range keys {
			if _, has := s.Data[key]; !has {
				errs = append(errs, field.Required(data.Key(key), ""))
			}
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		errs = append(errs, validateJSONKey(s, data, corev1.DockerConfigKey)...)
	case corev1.SecretTypeDockerConfigJson:
		errs = append(errs, validateJSONKey(s, data, corev1.DockerConfigJsonKey)...)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			errs = append(errs, field.Required(data.Key(corev1.BasicAuthUsernameKey), ""), field.Required(data.Key(corev1.BasicAuthPasswordKey), ""))
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		required(corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return errs
}

// validateJSONKey requires a key that holds JSON; its content is not echoed.
func validateJSONKey(s *corev1.Secret, data *field.Path, key string) field.ErrorList {
	content, has := s.Data[key]
	if !has {
		return field.ErrorList{field.Required(data.Key(key), "")}
	}
	if err := json.Unmarshal(content, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(data.Key(key), "<secret contents redacted>", err.Error())}
	}
	return nil
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))
	if old.Immutable == nil || !*old.Immutable {
		return errs
	}
	const message = "field is immutable when `immutable` is set"
	if s.Immutable == nil || !*s.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), message))
	}
	if !apiequality.Semantic.DeepEqual(s.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), message))
	}
	return errs
}

// secretWarnings tells of a certificate that does not go with its key. It is
// no error: both may be about to be replaced.
func secretWarnings(s *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}

func addSecrets(deps *registry.Dependencies, storages registry.Storages) error {
	_, own, err := registry.Build(deps, secretKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	return nil
}
