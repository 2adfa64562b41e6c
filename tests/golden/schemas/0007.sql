BEGIN TRANSACTION;
CREATE TABLE artifact (
	hash TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	media_type TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_artifact PRIMARY KEY (hash)
);
INSERT INTO "artifact" VALUES('4d16c0c4ba4712e856099c6c0d31c6951333c5b26224bb105d72b417dfd94b26',80128,'application/x-npy','2026-11-28T02:18:03.305866+00:00');
INSERT INTO "artifact" VALUES('9d62ebf3d25c6c110a31c7e85c11967940ac293a9eee9464dd97ae7f34779c16',80482,'application/x-npz','2026-11-28T02:18:03.320447+00:00');
CREATE TABLE bitfront_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT bitfront_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "bitfront_version" VALUES('0007');
CREATE TABLE "checkpoint" (
	study_id INTEGER NOT NULL, 
	pass_key TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_checkpoint PRIMARY KEY (study_id, pass_key, position), 
	CONSTRAINT fk_checkpoint_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT fk_checkpoint_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "checkpoint" VALUES(1,'pass',3,NULL,'9d62ebf3d25c6c110a31c7e85c11967940ac293a9eee9464dd97ae7f34779c16');
CREATE TABLE export (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	format TEXT NOT NULL, 
	folder TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	audit JSON NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_export PRIMARY KEY (id), 
	CONSTRAINT fk_export_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "export" VALUES(1,1,1,'safetensors','out',5368709120,'{"ok": 1}','2026-11-28T02:18:03.375889+00:00');
CREATE TABLE identity (
	"key" TEXT NOT NULL, 
	CONSTRAINT pk_identity PRIMARY KEY ("key")
);
INSERT INTO "identity" VALUES('0b82ba4c32f540b7b013fbdba9118133');
CREATE TABLE job (
	id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	study TEXT NOT NULL, 
	request JSON NOT NULL, 
	state TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	worker TEXT, 
	lease_until DOUBLE, 
	not_before DOUBLE, 
	failures INTEGER NOT NULL, 
	stage TEXT, 
	done BIGINT NOT NULL, 
	total BIGINT NOT NULL, 
	since BIGINT NOT NULL, 
	stage_began DOUBLE, 
	progressed DOUBLE, 
	error JSON, 
	result JSON, 
	created TEXT NOT NULL, 
	updated TEXT NOT NULL, 
	CONSTRAINT pk_job PRIMARY KEY (id), 
	CONSTRAINT uq_job_key UNIQUE ("key")
);
INSERT INTO "job" VALUES(1,'43e30ecfc05a151278502e303aa8600904485f501ad263b3603b1ee207e4a506','search','golden','{"number": 0, "budgets": ["3bpw"]}','succeeded',1,NULL,NULL,NULL,0,'profiling',1,4,1,1.79583228342875146871e+09,1.79583228342875146871e+09,NULL,'{"trials": [1]}','2026-11-28T02:18:03.383887+00:00','2026-11-28T02:18:03.436839+00:00');
INSERT INTO "job" VALUES(2,'d1a424694d9d3322edf3dbf95403d3bbaa1e29b2ea168a61ddac7faf74d50a44','search','golden','{"number": 1, "budgets": ["3bpw"]}','queued',1,NULL,NULL,1.79583228844042038915e+09,1,NULL,0,0,0,NULL,NULL,'{"text": "out of memory", "hint": "use less", "unit": "a w4"}',NULL,'2026-11-28T02:18:03.395816+00:00','2026-11-28T02:18:03.440422+00:00');
INSERT INTO "job" VALUES(3,'56aa69408a149c7d3ac19aca9340415f35625c8d8e548d190b256c0a88291570','search','golden','{"number": 2, "budgets": ["3bpw"]}','paused',1,'w2',1.79583234342385601994e+09,NULL,0,'refining',3,20,3,1.79583228344419336321e+09,1.79583228344419336321e+09,NULL,NULL,'2026-11-28T02:18:03.399804+00:00','2026-11-28T02:18:03.452386+00:00');
CREATE TABLE job_event (
	job_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	created TEXT NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_job_event PRIMARY KEY (job_id, number), 
	CONSTRAINT fk_job_event_job FOREIGN KEY(job_id) REFERENCES job (id)
);
INSERT INTO "job_event" VALUES(1,1,'submitted','2026-11-28T02:18:03.386417+00:00','{}');
INSERT INTO "job_event" VALUES(2,1,'submitted','2026-11-28T02:18:03.396710+00:00','{}');
INSERT INTO "job_event" VALUES(3,1,'submitted','2026-11-28T02:18:03.400555+00:00','{}');
INSERT INTO "job_event" VALUES(1,2,'claimed','2026-11-28T02:18:03.406165+00:00','{"worker": "w0", "attempt": 1}');
INSERT INTO "job_event" VALUES(2,2,'claimed','2026-11-28T02:18:03.415150+00:00','{"worker": "w1", "attempt": 1}');
INSERT INTO "job_event" VALUES(3,2,'claimed','2026-11-28T02:18:03.424887+00:00','{"worker": "w2", "attempt": 1}');
INSERT INTO "job_event" VALUES(1,3,'stage','2026-11-28T02:18:03.428972+00:00','{"stage": "profiling"}');
INSERT INTO "job_event" VALUES(1,4,'succeeded','2026-11-28T02:18:03.436697+00:00','{}');
INSERT INTO "job_event" VALUES(2,3,'retry','2026-11-28T02:18:03.440289+00:00','{"text": "out of memory", "hint": "use less", "unit": "a w4", "seconds": 5.0}');
INSERT INTO "job_event" VALUES(3,3,'stage','2026-11-28T02:18:03.444396+00:00','{"stage": "refining"}');
INSERT INTO "job_event" VALUES(3,4,'paused','2026-11-28T02:18:03.453237+00:00','{}');
CREATE TABLE measurement (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	profiler TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	layer TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	seconds DOUBLE, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT fk_measurement_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_measurement_study_id_profiler_settings_layer_scheme UNIQUE (study_id, profiler, settings, layer, scheme)
);
INSERT INTO "measurement" VALUES(1,1,'fisher','5e77','blocks.0.fc','w4g32+gptq',1.5);
INSERT INTO "measurement" VALUES(2,1,'mse','','kopf ü''"%','w8',0.0);
CREATE TABLE measurement_tally (
	study_id INTEGER NOT NULL, 
	profiler TEXT NOT NULL, 
	measurements BIGINT NOT NULL, 
	CONSTRAINT pk_measurement_tally PRIMARY KEY (study_id, profiler), 
	CONSTRAINT fk_measurement_tally_study FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "measurement_tally" VALUES(1,'fisher',1);
INSERT INTO "measurement_tally" VALUES(1,'mse',1);
CREATE TABLE "measurement_value" (
	measurement_id INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	samples BIGINT NOT NULL, 
	study_id INTEGER NOT NULL, 
	CONSTRAINT pk_measurement_value PRIMARY KEY (measurement_id, metric), 
	CONSTRAINT fk_measurement_value_measurement FOREIGN KEY(study_id, measurement_id) REFERENCES measurement (study_id, id)
);
INSERT INTO "measurement_value" VALUES(1,'kl',0.1,0.01,32,1);
INSERT INTO "measurement_value" VALUES(1,'cross_entropy',-1.0e-300,NULL,32,1);
INSERT INTO "measurement_value" VALUES(2,'mse',9e999,0.0,1,1);
CREATE TABLE "measurement_vector" (
	measurement_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_measurement_vector PRIMARY KEY (measurement_id, name), 
	CONSTRAINT fk_measurement_vector_measurement FOREIGN KEY(measurement_id) REFERENCES measurement (id), 
	CONSTRAINT fk_measurement_vector_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "measurement_vector" VALUES(1,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "measurement_vector" VALUES(1,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
INSERT INTO "measurement_vector" VALUES(2,'large',NULL,'4d16c0c4ba4712e856099c6c0d31c6951333c5b26224bb105d72b417dfd94b26');
CREATE TABLE selection (
	study_id INTEGER NOT NULL, 
	request_key TEXT NOT NULL, 
	trial_id INTEGER NOT NULL, 
	details JSON NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_selection PRIMARY KEY (study_id, request_key), 
	CONSTRAINT fk_selection_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "selection" VALUES(1,'3bpw',1,'{"rounds": 2}','2026-11-28T02:18:03.363780+00:00');
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created TEXT NOT NULL, 
	fingerprint JSON NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'golden','2026-11-28T02:18:03.237410+00:00','{"weights": "sha256:ab", "text": "32 lines"}','{"seed": 7}');
CREATE TABLE timing (
	id INTEGER NOT NULL, 
	target TEXT NOT NULL, 
	runtime TEXT NOT NULL, 
	device TEXT NOT NULL, 
	threads INTEGER NOT NULL, 
	kernel TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	spread DOUBLE NOT NULL, 
	repeats BIGINT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_timing PRIMARY KEY (id), 
	CONSTRAINT uq_timing_target_runtime_device_threads_kernel_scheme UNIQUE (target, runtime, device, threads, kernel, scheme)
);
INSERT INTO "timing" VALUES(1,'ort-cpu','onnxruntime 1.32.0','x86 µ',2,'linear 4x4','w8a8',1.0e-05,2.0e-07,50,'2026-11-28T02:18:03.469543+00:00');
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	measured_by TEXT NOT NULL, 
	created TEXT NOT NULL, 
	solver TEXT NOT NULL, 
	predicted DOUBLE, 
	bound DOUBLE, 
	seconds DOUBLE, 
	settings JSON NOT NULL, quantized INTEGER DEFAULT '0' NOT NULL, revision BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_trial_study_id_id UNIQUE (study_id, id), 
	CONSTRAINT uq_trial_study_id_key_measured_by UNIQUE (study_id, "key", measured_by)
);
INSERT INTO "trial" VALUES(1,1,'99c836c88583cdee4445137c2d014d09c087f050e5f9ffea5367353fa18a0092','by hand','2026-11-28T02:18:03.323900+00:00','ilp',0.4,-9e999,2.0,'{"budgets": ["3.5bpw"], "seed": 0}',1,1);
INSERT INTO "trial" VALUES(2,1,'cd8de32612a95c3a976904f5b098f4c868e958ae48a020914933bd9708f72006','by hand','2026-11-28T02:18:03.352033+00:00','uniform',NULL,0.0,0.5,'{}',1,2);
CREATE TABLE "trial_cost" (
	trial_id INTEGER NOT NULL, 
	resource TEXT NOT NULL, 
	value DOUBLE, 
	study_id INTEGER NOT NULL, 
	CONSTRAINT pk_trial_cost PRIMARY KEY (trial_id, resource), 
	CONSTRAINT fk_trial_cost_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "trial_cost" VALUES(1,'bytes',1000000001.0,1);
INSERT INTO "trial_cost" VALUES(1,'seconds@cpu:b1',NULL,1);
INSERT INTO "trial_cost" VALUES(2,'bytes',2.0,1);
CREATE TABLE trial_layer (
	trial_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	layer TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	CONSTRAINT pk_trial_layer PRIMARY KEY (trial_id, position), 
	CONSTRAINT fk_trial_layer_trial FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "trial_layer" VALUES(1,0,'z','w4');
INSERT INTO "trial_layer" VALUES(1,1,'a','keep');
INSERT INTO "trial_layer" VALUES(2,0,'z','w8');
CREATE TABLE "trial_metric" (
	trial_id INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	samples BIGINT NOT NULL, 
	study_id INTEGER NOT NULL, 
	CONSTRAINT pk_trial_metric PRIMARY KEY (trial_id, metric), 
	CONSTRAINT fk_trial_metric_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "trial_metric" VALUES(1,'kl',0.5,0.01,64,1);
CREATE TABLE trial_tally (
	study_id INTEGER NOT NULL, 
	trials BIGINT NOT NULL, 
	revision BIGINT NOT NULL, 
	CONSTRAINT pk_trial_tally PRIMARY KEY (study_id), 
	CONSTRAINT fk_trial_tally_study FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "trial_tally" VALUES(1,2,2);
CREATE TABLE "trial_vector" (
	trial_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_trial_vector PRIMARY KEY (trial_id, name), 
	CONSTRAINT fk_trial_vector_trial FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT fk_trial_vector_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "trial_vector" VALUES(1,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "trial_vector" VALUES(1,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
INSERT INTO "trial_vector" VALUES(2,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "trial_vector" VALUES(2,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
CREATE TABLE worker (
	name TEXT NOT NULL, 
	host TEXT NOT NULL, 
	version TEXT NOT NULL, 
	started TEXT NOT NULL, 
	seen DOUBLE NOT NULL, 
	lease DOUBLE NOT NULL, 
	CONSTRAINT pk_worker PRIMARY KEY (name)
);
INSERT INTO "worker" VALUES('w2','gpu-1','0.1.0','2026-01-01T00:00:00.000000+00:00',1.79583228345880365371e+09,3200000000.0);
CREATE INDEX ix_export_study_id ON export (study_id);
CREATE INDEX ix_job_state_id ON job (state, id);
CREATE INDEX ix_job_study ON job (study);
CREATE INDEX ix_checkpoint_artifact ON checkpoint (artifact);
CREATE INDEX ix_measurement_vector_artifact ON measurement_vector (artifact);
CREATE INDEX ix_trial_vector_artifact ON trial_vector (artifact);
CREATE INDEX ix_job_worker ON job (worker);
CREATE INDEX ix_trial_study_id_revision ON trial (study_id, revision);
CREATE UNIQUE INDEX ix_measurement_study_id_id ON measurement (study_id, id);
CREATE INDEX ix_measurement_value_study_id_metric_value_measurement_id ON measurement_value (study_id, metric, value, measurement_id);
CREATE INDEX ix_trial_cost_study_id_resource_value_trial_id ON trial_cost (study_id, resource, value, trial_id);
CREATE INDEX ix_trial_metric_study_id_metric_value_trial_id ON trial_metric (study_id, metric, value, trial_id);
COMMIT;
