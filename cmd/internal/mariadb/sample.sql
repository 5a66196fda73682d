-- Rows for inlookup -demo: one of each kind of answer. The password hashes are no hashes.
INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES
 ('postmaster','example.com','$5$demo$NotARealHash1',1,0,'Postmaster','/home/mail/example.com/postmaster','NOQUOTA'),
 ('user','example.com','$5$demo$NotARealHash2',1,0,'A User','/home/mail/example.com/user','5000000S'),
 ('over','example.com','$5$demo$NotARealHash3',1,16,'Over Quota','/home/mail/example.com/over','1000000S');
INSERT INTO indibak (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES
 ('inactive','example.com','$5$demo$NotARealHash4',1,0,'Inactive','/home/mail/example.com/inactive','5000000S');
INSERT INTO valias (alias,domain,valias_line) VALUES
 ('sales','example.com','&user@example.com'), ('sales','example.com','&someone@example.net');
-- user's last POP or IMAP login, from 192.0.2.10: the address may relay for 30 minutes from now on.
INSERT INTO relay (email,ipaddr,timestamp) VALUES ('user@example.com','192.0.2.10',UNIX_TIMESTAMP());
INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos) VALUES
 ('user','example.com','imap','192.0.2.10',5000000,'A User');
-- The domain's limits, and a record of the user over's own.
INSERT INTO vlimits (domain,maxpopaccounts,maxaliases,diskquota,maxmsgcount,defaultquota,defaultmaxmsgcount,disable_dialup) VALUES
 ('example.com',100,200,9000000000,50000,5000000,1000,1),
 ('over@example.com',-1,-1,1000000,100,1000000,100,1);
