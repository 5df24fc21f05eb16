"""The table of signing keys."""

from __future__ import annotations

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "ring",
                    models.CharField(
                        default="default",
                        max_length=64,
                        validators=[django.core.validators.RegexValidator("^[A-Za-z0-9_-]{1,64}$")],
                    ),
                ),
                ("sequence", models.PositiveIntegerField()),
                ("kid", models.CharField(max_length=255, unique=True)),
                ("thumbprint", models.CharField(max_length=43, unique=True)),
                ("alg", models.CharField(max_length=16)),
                ("public_jwk", models.TextField()),
                ("private_envelope", models.BinaryField(null=True)),
                ("seal", models.BinaryField(max_length=37)),
                (
                    "origin",
                    models.CharField(
                        choices=[("generated", "generated"), ("imported", "imported")],
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("created_by", models.CharField(blank=True, max_length=150)),
                ("note", models.CharField(blank=True, max_length=255)),
                ("activates_at", models.DateTimeField()),
                (
                    "retention",
                    models.PositiveIntegerField(
                        validators=[django.core.validators.MinValueValidator(1)]
                    ),
                ),
                ("revoked_at", models.DateTimeField(null=True)),
                ("revoke_reason", models.CharField(blank=True, max_length=255)),
                ("destroyed_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "baikal_signingkey",
                "ordering": ["ring", "-sequence"],
                "permissions": (
                    ("rotate_signingkey", "Can rotate signing keys"),
                    ("revoke_signingkey", "Can revoke signing keys"),
                ),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("ring", "sequence"), name="baikal_signingkey_ring_sequence"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("retention__gt", 0)), name="baikal_signingkey_retention"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("revoked_at__isnull", True),
                            ("private_envelope__isnull", True),
                            _connector="OR",
                        ),
                        name="baikal_signingkey_revoked_is_wiped",
                    ),
                ],
            },
        ),
    ]
